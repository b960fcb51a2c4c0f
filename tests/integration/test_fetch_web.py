"""``muelle fetch`` from real web servers: what they do wrong is told in one sentence, and leaves nothing behind."""

from __future__ import annotations

import filecmp
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import Certificates, make_certificates
from click.testing import CliRunner, Result
from support import free_port
from web_server import Handler, WebServer, once

from muelle.bundle import open_bundle
from muelle.bundle.files import sha256
from muelle.cli import main
from muelle.errors import StoreUnreachableError
from muelle.store import fetch as store_fetch
from muelle.store.remote import Access
from muelle.store.source import Source

BUNDLE = Path(__file__).parents[1] / "fixtures" / "bundles" / "v1" / "linear" / "1"
DIGEST = f"sha256:{sha256((BUNDLE / 'manifest.json').read_bytes())}"
Fetch = Callable[..., Result]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """What a web server serves: one bundle at /linear/1, to damage."""
    shutil.copytree(BUNDLE, tmp_path / "served" / "linear" / "1")
    return tmp_path / "served"


@pytest.fixture
def web(served: Path) -> Iterator[WebServer]:
    with WebServer(served) as server:
        yield server


@pytest.fixture
def secure(served: Path, certificates: Certificates) -> Iterator[WebServer]:
    with WebServer(served, certificates) as server:
        yield server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def fetch(models: Path) -> Fetch:
    """Run ``muelle fetch --insecure`` into `models`, without retries unless they are asked for."""

    def run(
        *arguments: str, retry_seconds: float = 0, env: dict[str, str] | None = None, insecure: bool = True
    ) -> Result:
        options = ["--to", str(models), "--retry-seconds", str(retry_seconds), *(["--insecure"] if insecure else [])]
        result = CliRunner().invoke(main, ["fetch", *options, *arguments], env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def refused(result: Result, models: Path) -> str:
    """Return the sentence of a command that failed and left nothing behind."""
    assert result.exit_code == 1, result.output
    assert [path for path in models.rglob("*") if not path.is_dir()] == []
    assert [path for path in models.rglob("*") if path.name.startswith(".")] == []
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def same(one: Path, other: Path) -> bool:
    comparison = filecmp.dircmp(one, other)
    _, differing, failed = filecmp.cmpfiles(one, other, comparison.common_files, shallow=False)
    return not (comparison.left_only or comparison.right_only or differing or failed)


def test_a_bundle_arrives_as_it_is(web, fetch, models):
    result = fetch(f"{web.url}/linear/1@{DIGEST}", "--output", "json")
    assert result.exit_code == 0
    (facts,) = json.loads(result.stdout)
    assert (facts["name"], facts["version"], facts["digest"], facts["state"]) == ("linear", "1", DIGEST, "fetched")
    assert facts["size_bytes"] == sum(path.stat().st_size for path in BUNDLE.iterdir() if path.name != "manifest.json")
    assert same(BUNDLE, models / "linear" / "1")
    assert open_bundle(models / "linear" / "1").digest == DIGEST


def test_no_listing_is_needed_and_the_manifest_comes_first(web, fetch):
    assert fetch(f"{web.url}/linear/1/").exit_code == 0
    paths = [path for path, _ in web.seen]
    assert paths[0] == "/linear/1/manifest.json"
    assert sorted(paths) == sorted(f"/linear/1/{path.name}" for path in BUNDLE.iterdir())


def test_with_a_digest_what_is_there_is_not_asked_for(web, fetch, models):
    assert fetch(f"{web.url}/linear/1@{DIGEST}").exit_code == 0
    web.seen.clear()
    result = fetch(f"{web.url}/linear/1@{DIGEST}", "--output", "json")
    assert json.loads(result.stdout)[0]["state"] == "already there"
    assert web.seen == []


def test_without_a_digest_only_the_manifest_is_asked_for(web, fetch):
    assert fetch(f"{web.url}/linear/1").exit_code == 0
    web.seen.clear()
    result = fetch(f"{web.url}/linear/1")
    assert "already there" in result.stdout
    assert f"write {web.url}/linear/1@{DIGEST}" in result.stderr
    assert [path for path, _ in web.seen] == ["/linear/1/manifest.json"]


def test_http_is_refused_unless_it_is_asked_for(web, fetch, models):
    message = refused(fetch(f"{web.url}/linear/1", insecure=False), models)
    assert message == f"{web.url}/linear/1: http can be read and changed on the way; --insecure takes it all the same"
    assert web.seen == []


def test_another_bundle_than_the_pinned_one(web, fetch, models):
    other = "sha256:" + "0" * 64
    message = refused(fetch(f"{web.url}/linear/1@{other}"), models)
    assert message == f"{web.url}/linear/1: expected the bundle {other}, found {DIGEST}"
    assert [path for path, _ in web.seen] == ["/linear/1/manifest.json"]


def test_a_flipped_byte(web, served, fetch, models):
    data = bytearray((served / "linear/1/model.onnx").read_bytes())
    data[100] ^= 1
    (served / "linear/1/model.onnx").write_bytes(data)
    message = refused(fetch(f"{web.url}/linear/1@{DIGEST}"), models)
    assert message.startswith(
        f"{web.url}/linear/1: model.onnx: its SHA-256 is {sha256(bytes(data))}, the manifest says "
    )


@pytest.mark.parametrize(("change", "words"), [(-1, "bytes, found"), (1, "bytes, found more")])
def test_a_file_of_another_size(web, served, fetch, models, change, words):
    path = served / "linear/1/model.joblib"
    data = path.read_bytes()
    path.write_bytes(data[:-1] if change < 0 else data + b"x")
    message = refused(fetch(f"{web.url}/linear/1"), models)
    assert message.startswith(f"{web.url}/linear/1: model.joblib: expected {len(data)} {words}")


def test_a_file_that_is_not_there(web, served, fetch, models):
    (served / "linear/1/golden.json").unlink()
    message = refused(fetch(f"{web.url}/linear/1"), models)
    assert message == f"{web.url}/linear/1: golden.json: missing from the bundle"


def test_a_place_without_a_bundle(web, fetch, models):
    message = refused(fetch(f"{web.url}/linear/7"), models)
    assert message == f"no bundle at {web.url}/linear/7: {web.url}/linear/7/manifest.json: not found"


def test_a_page_instead_of_a_manifest(web, served, fetch, models):
    (served / "linear/1/manifest.json").write_text("<html>please log in</html>")
    message = refused(fetch(f"{web.url}/linear/1@{DIGEST}"), models)
    assert message.startswith(f"{web.url}/linear/1: not a bundle that can be read: manifest.json: not JSON")


def test_a_bundle_of_a_newer_format(web, served, fetch, models):
    document = json.loads((BUNDLE / "manifest.json").read_bytes()) | {"format_version": 2}
    (served / "linear/1/manifest.json").write_text(json.dumps(document))
    assert "the bundle has 2; upgrade Muelle" in refused(fetch(f"{web.url}/linear/1"), models)


@pytest.mark.parametrize("name", ["../linear", "a/b", "..", ""])
def test_a_name_that_would_leave_the_folder(web, served, fetch, models, name):
    document = json.loads((BUNDLE / "manifest.json").read_bytes()) | {"name": name}
    (served / "linear/1/manifest.json").write_text(json.dumps(document))
    assert "name: expected 1 to 63 letters" in refused(fetch(f"{web.url}/linear/1"), models)


def test_a_file_name_that_would_leave_the_folder(web, served, fetch, models):
    document = json.loads((BUNDLE / "manifest.json").read_bytes())
    document["files"]["../../evil"] = document["files"].pop("golden.json")
    (served / "linear/1/manifest.json").write_text(json.dumps(document))
    assert "files: expected exactly" in refused(fetch(f"{web.url}/linear/1"), models)
    assert [path for path, _ in web.seen] == ["/linear/1/manifest.json"]


def test_a_manifest_without_an_end(web, fetch, models):
    web.behaviour = lambda handler: handler.answer(200, b"[" * (16 * 1024 * 1024 + 1)) is None
    message = refused(fetch(f"{web.url}/linear/1"), models)
    assert message == f"{web.url}/linear/1/manifest.json: larger than 16777216 bytes"


def test_more_bytes_than_allowed(web, fetch, models):
    message = refused(fetch(f"{web.url}/linear/1", "--max-bytes", "1000"), models)
    assert "bytes, more than --max-bytes 1000" in message
    assert [path for path, _ in web.seen] == ["/linear/1/manifest.json"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "answers 400 Bad Request"),
        (401, "answers 401 Unauthorized: credentials are needed, or these are wrong"),
        (403, "answers 403 Forbidden: these credentials may not do that, or there are none"),
        (410, "answers 410 Gone"),
        (429, "answers 429 Too Many Requests"),
        (500, "answers 500 Internal Server Error"),
        (503, "answers 503 Service Unavailable"),
        (599, "answers 599"),
    ],
)
def test_an_answer_that_is_none(web, fetch, models, status, words):
    web.behaviour = lambda handler: handler.answer(status, b"<html>sorry</html>") is None
    message = refused(fetch(f"{web.url}/linear/1"), models)
    assert message.startswith(f"{web.url}/linear/1/manifest.json: {web.url} {words}")


def test_nobody_listens(fetch, models):
    url = f"http://127.0.0.1:{free_port()}"
    message = refused(fetch(f"{url}/linear/1"), models)
    assert message == f"{url}/linear/1/manifest.json: {url} refused the connection"


def test_a_name_that_nobody_knows(fetch, models):
    message = refused(fetch("https://no-such-host.invalid/linear/1"), models)
    assert "the name of https://no-such-host.invalid can't be looked up: " in message


def test_a_server_that_does_not_speak_tls(web, fetch, models):
    url = web.url.replace("http:", "https:")
    message = refused(fetch(f"{url}/linear/1", insecure=False), models)
    assert message == f"{url}/linear/1/manifest.json: {url} does not speak TLS"


def test_a_server_that_hangs_up(fetch, models):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(20):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(10_000)
                connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        message = refused(fetch(f"{url}/linear/1"), models)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    assert message.startswith(f"{url}/linear/1/manifest.json: ")
    assert url in message.partition(": ")[2]


def test_a_file_that_breaks_off(web, fetch, models):
    data = (BUNDLE / "model.joblib").read_bytes()

    def half(handler: Handler) -> bool:
        return handler.path.endswith("joblib") and handler.answer(200, data[:300], length=len(data)) is None

    web.behaviour = half
    message = refused(fetch(f"{web.url}/linear/1"), models)
    assert message == f"{web.url}/linear/1/model.joblib: the connection broke in the middle"


def test_a_file_that_stands_still(web, models):
    def half(handler: Handler) -> bool:
        return handler.path.endswith("joblib") and handler.stand_still(b"x" * 300) is None

    web.behaviour = half
    access = Access(insecure=True, retry_seconds=0, timeout_seconds=0.5)
    with pytest.raises(StoreUnreachableError, match=r"model\.joblib: the server did not answer in time"):
        store_fetch.fetch(Source.parse(f"{web.url}/linear/1"), models, access, max_bytes=10**9)
    assert list((models / "linear").iterdir()) == []


def test_a_file_that_breaks_off_once_is_asked_for_again(web, fetch, models):
    data = (BUNDLE / "model.joblib").read_bytes()
    web.behaviour = once(lambda handler: handler.answer(200, data[:300], length=len(data)) is None, "joblib")
    result = fetch(f"{web.url}/linear/1@{DIGEST}", retry_seconds=30)
    assert result.exit_code == 0
    assert "the connection broke in the middle; trying again for up to 30 seconds" in result.stderr
    assert same(BUNDLE, models / "linear" / "1")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_once(web, fetch, models, status):
    web.behaviour = once(lambda handler: handler.answer(status) is None)
    assert fetch(f"{web.url}/linear/1@{DIGEST}", retry_seconds=30).exit_code == 0
    assert same(BUNDLE, models / "linear" / "1")


def test_a_server_that_comes_up_later(served, models):
    port = free_port()
    command = [sys.executable, "-m", "muelle.cli", "fetch", "--to", str(models), "--insecure", "--retry-seconds", "60"]
    command.append(f"http://127.0.0.1:{port}/linear/1@{DIGEST}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "refused the connection; trying again for up to 60 seconds" in process.stderr.readline()
    with WebServer(served, port=port):
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert same(BUNDLE, models / "linear" / "1")


def test_a_server_that_stays_away_is_given_up(fetch, models):
    url = f"http://127.0.0.1:{free_port()}"
    result = fetch(f"{url}/linear/1", retry_seconds=0.5)
    assert result.exit_code == 1
    first, last = result.stderr.splitlines()
    assert first.endswith("refused the connection; trying again for up to 0.5 seconds")
    assert last.endswith("refused the connection; gave up after 0.5 seconds")


def test_redirects_are_followed(web, served, fetch, models):
    with WebServer(served) as other:
        web.behaviour = lambda handler: handler.answer(302, location=other.url + handler.path) is None
        assert fetch(f"{web.url}/linear/1@{DIGEST}").exit_code == 0
    assert same(BUNDLE, models / "linear" / "1")


def test_redirects_without_an_end(web, fetch, models):
    web.behaviour = lambda handler: handler.answer(302, location=web.url + handler.path) is None
    message = refused(fetch(f"{web.url}/linear/1"), models)
    assert message == f"{web.url}/linear/1/manifest.json: redirects without an end"


def test_tls_with_an_authority_of_ones_own(secure, certificates, fetch, models):
    env = {"SSL_CERT_FILE": str(certificates.authority)}
    assert fetch(f"{secure.url}/linear/1@{DIGEST}", insecure=False, env=env).exit_code == 0
    assert same(BUNDLE, models / "linear" / "1")


def test_a_certificate_that_nobody_vouches_for(secure, fetch, models):
    message = refused(fetch(f"{secure.url}/linear/1", insecure=False), models)
    assert message == (
        f"{secure.url}/linear/1/manifest.json: {secure.url}'s certificate is not trusted (UnknownIssuer); "
        "SSL_CERT_FILE can name an authority of your own"
    )


def test_insecure_does_not_mean_any_certificate(secure, fetch, models):
    assert "certificate is not trusted" in refused(fetch(f"{secure.url}/linear/1"), models)


def test_https_is_not_redirected_to_http(web, secure, certificates, fetch, models):
    secure.behaviour = lambda handler: handler.answer(302, location=web.url + handler.path) is None
    env = {"SSL_CERT_FILE": str(certificates.authority)}
    message = refused(fetch(f"{secure.url}/linear/1", insecure=False, env=env), models)
    assert message.endswith("plain http, or a redirect to it, is refused; --insecure takes it all the same")
    assert web.seen == []


def test_the_authorization_header_goes_to_the_named_host_only(secure, served, certificates, fetch):
    env = {"SSL_CERT_FILE": str(certificates.authority), "MUELLE_FETCH_AUTHORIZATION": "Bearer abc"}
    with WebServer(served, certificates) as other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        secure.behaviour = lambda handler: handler.answer(302, location=elsewhere + handler.path) is None
        assert fetch(f"{secure.url}/linear/1@{DIGEST}", insecure=False, env=env).exit_code == 0
        assert {headers.get("authorization") for _, headers in secure.seen} == {"Bearer abc"}
        assert other.seen
        assert {headers.get("authorization") for _, headers in other.seen} == {None}


def test_the_authorization_header_does_not_go_out_unencrypted(web, fetch):
    assert fetch(f"{web.url}/linear/1", env={"MUELLE_FETCH_AUTHORIZATION": "Bearer abc"}).exit_code == 0
    assert {headers.get("authorization") for _, headers in web.seen} == {None}


def test_a_signature_in_the_query_goes_with_each_file_and_is_not_shown(web, fetch):
    result = fetch(f"{web.url}/linear/1?sig=s3cr3t@{DIGEST}")
    assert result.exit_code == 0
    assert {path.partition("?")[2] for path, _ in web.seen} == {"sig=s3cr3t"}
    failed = fetch(f"{web.url}/linear/7?sig=s3cr3t")
    assert failed.exit_code == 1
    assert "s3cr3t" not in result.output + failed.output


def test_several_sources_from_the_environment(web, served, fetch, models, repository):
    shutil.copytree(repository / "iris" / "1", served / "iris" / "1")
    iris = open_bundle(served / "iris" / "1").digest
    env = {"MUELLE_FETCH": f"\n{web.url}/linear/1 {DIGEST}\n  {web.url}/iris/1   {iris}  \n\n"}
    result = fetch("--output", "json", env=env)
    assert [(item["name"], item["digest"]) for item in json.loads(result.stdout)] == [
        ("linear", DIGEST),
        ("iris", iris),
    ]
    assert same(served / "iris/1", models / "iris/1")
    # One that fails does not take away what is whole.
    again = fetch(f"{web.url}/linear/1@{DIGEST}", f"{web.url}/none/1")
    assert again.exit_code == 1
    assert sorted(path.name for path in models.iterdir()) == ["iris", "linear"]
