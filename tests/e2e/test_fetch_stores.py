"""``muelle push`` and ``muelle fetch`` with a real S3 server and a real OCI registry. No cluster is needed."""

from __future__ import annotations

import base64
import contextlib
import filecmp
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Certificates, make_certificates
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from store_servers import ACCESS_KEY, S3, SECRET_KEY, basic, make_s3, registry
from token_server import ISSUER, REFRESH_TOKEN, SERVICE, TokenServer

from muelle.bundle import open_bundle, save
from muelle.cli import main

_FOREIGN = ("AWS_", "AZURE_", "GOOGLE_", "MUELLE_", "DOCKER_", "SSL_CERT")
Muelle = Callable[..., Result]


@pytest.fixture(scope="module")
def muelle() -> Muelle:
    """Run ``muelle …`` with nothing of this machine's own credentials."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
        clean: dict[str, str | None] = {key: None for key in os.environ if key.startswith(_FOREIGN)}
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=clean | (env or {}))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two versions of a small model, and a large one that is uploaded in parts."""
    path = tmp_path_factory.mktemp("bundles")
    chance = np.random.default_rng(0)
    rows = chance.normal(size=(100, 3))
    for version in ("1", "2"):
        save(
            LinearRegression().fit(rows, rows @ [1, 2, int(version)]),
            rows,
            name="line",
            version=version,
            repository=path,
        )
    rows = chance.normal(size=(50_000, 40))
    large = KNeighborsRegressor(algorithm="brute").fit(rows, rows[:, 0])
    save(large, rows[:50], name="large", version="1", repository=path, onnx=False)
    assert (path / "large" / "1" / "model.joblib").stat().st_size > 15_000_000
    return path


@pytest.fixture(scope="module")
def line(bundles: Path) -> str:
    """The small model's digest."""
    return open_bundle(bundles / "line" / "1").digest


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = make_s3(tmp_path_factory.mktemp("s3"))
    with server.running():
        yield server


@pytest.fixture
def bucket(s3: S3) -> Path:
    """A bucket of the test's own, as a folder."""
    return s3.bucket(f"bucket-{len(list(s3.folder.iterdir()))}")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def refused(result: Result, models: Path | None = None) -> str:
    """Return the sentence of a command that failed and left nothing behind."""
    assert result.exit_code == 1, result.output
    assert models is None or [path for path in models.rglob("*") if not path.is_dir()] == []
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0].removeprefix("Error: ")


def same(one: Path, other: Path) -> bool:
    comparison = filecmp.dircmp(one, other)
    _, differing, failed = filecmp.cmpfiles(one, other, comparison.common_files, shallow=False)
    return not (comparison.left_only or comparison.right_only or differing or failed)


class TestS3:
    """An S3 server with path-style addresses, over http."""

    @pytest.mark.parametrize("name", ["line", "large"])
    def test_there_and_back(self, muelle, bundles, s3, bucket, tmp_path, name):
        url = f"s3://{bucket.name}/models/{name}"
        pushed = muelle("push", bundles / name / "1", url, env=s3.environ)
        assert pushed.exit_code == 0, pushed.output
        assert pushed.stdout == f"{url}@{open_bundle(bundles / name / '1').digest}\n"
        fetched = muelle("fetch", "--to", tmp_path, pushed.stdout.strip(), env=s3.environ)
        assert fetched.exit_code == 0, fetched.output
        assert same(bundles / name / "1", tmp_path / name / "1")
        assert muelle("verify", tmp_path / name / "1").exit_code == 0

    def test_the_chart_s_form_of_a_source(self, muelle, bundles, line, s3, bucket, tmp_path):
        url = f"s3://{bucket.name}/line/1"
        assert muelle("push", bundles / "line/1", url, env=s3.environ).exit_code == 0
        env = s3.environ | {"MUELLE_FETCH": f"{url} {line}\n"}
        (facts,) = json.loads(muelle("fetch", "--to", tmp_path, "--output", "json", env=env).stdout)
        assert (facts["state"], facts["digest"]) == ("fetched", line)

    def test_the_same_again_is_fine_and_another_is_refused(self, muelle, bundles, line, s3, bucket, tmp_path):
        url = f"s3://{bucket.name}/line"
        states = [
            json.loads(muelle("push", bundles / "line/1", url, "--output", "json", env=s3.environ).stdout)["state"]
            for _ in range(2)
        ]
        assert states == ["pushed", "already there"]
        before = {path.name: path.stat().st_mtime_ns for path in (bucket / "line").iterdir()}
        message = refused(muelle("push", bundles / "line/2", url, env=s3.environ))
        assert message == f"{url} holds another bundle, {line}; it is not overwritten, choose another URL"
        assert before == {path.name: path.stat().st_mtime_ns for path in (bucket / "line").iterdir()}

    def test_of_two_at_once_with_the_same_bundle_both_are_content(self, bundles, line, s3, bucket, muelle, tmp_path):
        url = f"s3://{bucket.name}/line"
        command = [sys.executable, "-m", "muelle.cli", "push", str(bundles / "line/1"), url]
        environ = os.environ | s3.environ
        both = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [process.communicate(timeout=60)[0] for process in both] == [f"{url}@{line}\n"] * 2
        assert muelle("fetch", "--to", tmp_path, f"{url}@{line}", env=s3.environ).exit_code == 0

    def test_killed_at_any_moment_half_of_it_is_never_a_bundle(self, muelle, bundles, s3, bucket, tmp_path):
        chance = random.Random(0)
        digest = open_bundle(bundles / "large/1").digest
        environ = os.environ | s3.environ
        half = 0
        for turn in range(8):
            url = f"s3://{bucket.name}/{turn}"
            command = [sys.executable, "-m", "muelle.cli", "push", str(bundles / "large/1"), url]
            process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            place = bucket / str(turn)
            while not place.exists() and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.08))
            process.kill()
            process.communicate(timeout=20)
            models = tmp_path / str(turn)
            result = muelle("fetch", "--to", models, f"{url}@{digest}", env=s3.environ)
            if result.exit_code == 0:
                assert same(bundles / "large/1", models / "large/1")
            else:
                half += 1
                assert refused(result, models).startswith(f"no bundle at {url}: {url}/manifest.json: not found")
            # The next push goes on where that one was ended.
            assert muelle("push", bundles / "large/1", url, env=s3.environ).exit_code == 0
            assert muelle("fetch", "--to", models, f"{url}@{digest}", env=s3.environ).exit_code == 0
        assert half, "no kill met a push that was under way: the test shows nothing"

    def test_a_flipped_byte_in_the_store(self, muelle, bundles, s3, bucket, tmp_path):
        url = f"s3://{bucket.name}/line"
        assert muelle("push", bundles / "line/1", url, env=s3.environ).exit_code == 0
        path = bucket / "line" / "model.joblib"
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        message = refused(muelle("fetch", "--to", tmp_path, url, env=s3.environ), tmp_path)
        assert message.startswith(f"{url}: model.joblib: its SHA-256 is ")
        path.write_bytes(data[:-1])
        message = refused(muelle("fetch", "--to", tmp_path, url, env=s3.environ), tmp_path)
        assert message.startswith(f"{url}: model.joblib: expected {len(data)} bytes, found {len(data) - 1}")
        path.unlink()
        message = refused(muelle("fetch", "--to", tmp_path, url, env=s3.environ), tmp_path)
        assert message == f"{url}: model.joblib: missing from the bundle"

    @pytest.mark.parametrize(("change", "words"), [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "answers 403 Forbidden: SignatureDoesNotMatch, "),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "XAdminUserNotFound, "),
        ({"AWS_SKIP_SIGNATURE": "true"}, "answers 403 Forbidden: AccessDenied, Access Denied: these credentials"),
        ({"AWS_ALLOW_HTTP": "false"}, "plain http, or a redirect to it, is refused; --insecure takes it all the same"),
    ])  # fmt: skip
    def test_wrong_settings(self, muelle, bundles, s3, bucket, tmp_path, change, words):
        url = f"s3://{bucket.name}/line"
        env = s3.environ | change
        assert words in refused(muelle("fetch", "--to", tmp_path, "--retry-seconds", 0, url, env=env), tmp_path)
        assert words in refused(muelle("push", bundles / "line/1", url, "--retry-seconds", 0, env=env))

    def test_insecure_allows_http_too(self, muelle, bundles, s3, bucket):
        env = s3.environ | {"AWS_ALLOW_HTTP": "false"}
        assert muelle("push", "--insecure", bundles / "line/1", f"s3://{bucket.name}/line", env=env).exit_code == 0

    def test_no_such_bucket_or_object(self, muelle, bundles, s3, bucket, tmp_path):
        message = refused(muelle("fetch", "--to", tmp_path, f"s3://{bucket.name}/none", env=s3.environ), tmp_path)
        assert "manifest.json: not found: NoSuchKey, The specified key does not exist" in message
        message = refused(muelle("fetch", "--to", tmp_path, "s3://no-such-bucket/x", env=s3.environ), tmp_path)
        assert "manifest.json: not found: NoSuchBucket, The specified bucket does not exist" in message
        message = refused(muelle("push", bundles / "line/1", "s3://no-such-bucket/x", env=s3.environ))
        assert "not found: NoSuchBucket" in message

    def test_a_store_that_is_down_and_one_that_comes_back(self, muelle, bundles, line, tmp_path):
        server = make_s3(tmp_path)
        server.bucket("bucket")
        url = f"s3://bucket/line@{line}"
        fetch = ("fetch", "--to", tmp_path / "m", "--retry-seconds", 0, url)
        message = refused(muelle(*fetch, env=server.environ))
        assert message == f"s3://bucket/line/manifest.json: {server.url} refused the connection"
        with server.running():
            assert muelle("push", bundles / "line/1", "s3://bucket/line", env=server.environ).exit_code == 0
        command = [
            sys.executable,
            "-m",
            "muelle.cli",
            "fetch",
            "--to",
            str(tmp_path / "m"),
            "--retry-seconds",
            "60",
            url,
        ]
        environ = os.environ | server.environ
        with subprocess.Popen(
            command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert "refused the connection; trying again for up to 60 seconds" in process.stderr.readline()
            with server.running():
                process.communicate(timeout=90)
        assert process.returncode == 0
        # What is there already needs no store.
        assert muelle(*fetch, env=server.environ).exit_code == 0


@pytest.fixture(scope="module")
def docker_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """Write a config.json as ``docker login`` does, and give the environment that names it."""

    def write(host: str, user: str = "me", password: str = SECRET_KEY, **more: Any) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("docker")
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth, **more}}}))
        return {"DOCKER_CONFIG": str(folder)}

    return write


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[str]:
    """A registry with TLS, a user and a password."""
    folder = tmp_path_factory.mktemp("registry")
    with registry(folder, certificates, basic(folder)) as host:
        yield host


@pytest.fixture(scope="module")
def env(host: str, certificates: Certificates, docker_config: Callable[..., dict[str, str]]) -> dict[str, str]:
    """What lets one in there."""
    return {"SSL_CERT_FILE": str(certificates.authority), **docker_config(host)}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[TokenServer]:
    """A server that gives out tokens."""
    with TokenServer(tmp_path_factory.mktemp("tokens"), certificates) as server:
        yield server


@pytest.fixture(scope="module")
def token_host(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, tokens: TokenServer
) -> Iterator[str]:
    """A registry that wants them."""
    auth = {
        "realm": f"{tokens.url}/token",
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(certificates.authority),
    }
    with registry(tmp_path_factory.mktemp("registry"), certificates, {"token": auth}) as host:
        yield host


class TestRegistry:
    """An OCI registry with TLS, a user and a password."""

    @pytest.mark.parametrize("name", ["line", "large"])
    def test_there_and_back(self, muelle, bundles, host, env, tmp_path, name):
        url = f"oci://{host}/models/{name}:1"
        pushed = muelle("push", bundles / name / "1", url, env=env)
        assert pushed.exit_code == 0, pushed.output
        assert pushed.stdout == f"{url}@{open_bundle(bundles / name / '1').digest}\n"
        fetched = muelle("fetch", "--to", tmp_path, pushed.stdout.strip(), env=env)
        assert fetched.exit_code == 0, fetched.output
        assert same(bundles / name / "1", tmp_path / name / "1")

    def test_the_same_again_is_fine_and_another_is_refused(self, muelle, bundles, line, host, env):
        url = f"oci://{host}/again:1"
        states = [
            json.loads(muelle("push", bundles / "line/1", url, "--output", "json", env=env).stdout)["state"]
            for _ in range(2)
        ]
        assert states == ["pushed", "already there"]
        message = refused(muelle("push", bundles / "line/2", url, env=env))
        assert message == f"{url} holds another bundle, {line}; it is not overwritten, choose another URL"
        assert muelle("push", bundles / "line/2", f"oci://{host}/again:2", env=env).exit_code == 0

    def test_nothing_there(self, muelle, host, env, tmp_path):
        message = refused(muelle("fetch", "--to", tmp_path, f"oci://{host}/nothing:1", env=env), tmp_path)
        assert message == f"no bundle at oci://{host}/nothing:1: oci://{host}/nothing:1: no such repository or tag"

    def test_an_artefact_that_is_no_bundle(self, muelle, bundles, host, env, certificates, tmp_path, monkeypatch):
        """An image, say: it has layers, but none with a bundle's file names."""
        from muelle.store.registry import Registry
        from muelle.store.remote import Access

        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        assert muelle("push", bundles / "line/1", f"oci://{host}/image:bundle", env=env).exit_code == 0
        access = Access(registry_username="me", registry_password=SECRET_KEY)
        client = Registry(host, "image", "pull,push", access)
        kind = "application/vnd.oci.image.manifest.v1+json"
        with contextlib.closing(client.send("GET", "/manifests/bundle", {"Accept": kind})) as answer:
            document = json.loads(answer.read())
        for layer in document["layers"]:
            layer["annotations"] = {}
        client.send("PUT", "/manifests/image", {"Content-Type": kind}, json.dumps(document).encode()).close()
        url = f"oci://{host}/image:image"
        message = refused(muelle("fetch", "--to", tmp_path, url, env=env), tmp_path)
        assert message == f"{url} holds something that is no bundle: no manifest.json in it"

    def test_another_bundle_under_the_tag_than_the_pinned_one(self, muelle, bundles, line, host, env, tmp_path):
        url = f"oci://{host}/moved:latest"
        assert muelle("push", bundles / "line/2", url, env=env).exit_code == 0
        message = refused(muelle("fetch", "--to", tmp_path, f"{url}@{line}", env=env), tmp_path)
        assert message == f"{url}: expected the bundle {line}, found {open_bundle(bundles / 'line/2').digest}"

    def test_credentials(self, muelle, bundles, host, env, certificates, docker_config, tmp_path):
        url = f"oci://{host}/secret:1"
        ssl = {"SSL_CERT_FILE": str(certificates.authority)}
        message = refused(muelle("push", bundles / "line/1", url, env=ssl | {"HOME": str(tmp_path)}))
        assert message == f"{url}: https://{host} wants a user and a password, and there are none for {host}"
        message = refused(muelle("push", bundles / "line/1", url, env=ssl | docker_config(host, password="wrong")))
        assert f"{url}: https://{host} answers 401 Unauthorized: UNAUTHORIZED" in message
        assert message.endswith("; these credentials may not do that")
        named = {"MUELLE_REGISTRY_USERNAME": "me", "MUELLE_REGISTRY_PASSWORD": SECRET_KEY}
        assert muelle("push", bundles / "line/1", url, env=ssl | named).exit_code == 0

    def test_a_certificate_that_nobody_vouches_for(self, muelle, host, docker_config, tmp_path):
        message = refused(muelle("fetch", "--to", tmp_path, f"oci://{host}/x:1", env=docker_config(host)), tmp_path)
        assert f"https://{host}'s certificate is not trusted (" in message

    def test_insecure_still_takes_tls_where_there_is_any(self, muelle, bundles, host, env, tmp_path):
        url = f"oci://{host}/insecure:1"
        assert muelle("push", "--insecure", bundles / "line/1", url, env=env).exit_code == 0

    def test_nobody_listens(self, muelle, tmp_path):
        from support import free_port

        port = free_port()
        url = f"oci://127.0.0.1:{port}/x:1"
        message = refused(muelle("fetch", "--to", tmp_path, "--retry-seconds", 0, url), tmp_path)
        assert message == f"{url}: https://127.0.0.1:{port} refused the connection"


def test_a_registry_without_tls_must_be_asked_for(muelle, bundles, line, tmp_path):
    with registry(tmp_path) as host:
        url = f"oci://{host}/models/line:1"
        push = ("push", bundles / "line/1", url, "--retry-seconds", 0)
        assert refused(muelle(*push)) == f"{url}: https://{host} does not speak TLS"
        assert muelle(*push, "--insecure").exit_code == 0
        assert muelle("fetch", "--insecure", "--to", tmp_path / "m", f"{url}@{line}").exit_code == 0
        assert same(bundles / "line/1", tmp_path / "m/line/1")


def test_a_flipped_byte_in_a_registry(muelle, bundles, tmp_path):
    with registry(tmp_path) as host:
        url = f"oci://{host}/line:1"
        assert muelle("push", "--insecure", bundles / "line/1", url).exit_code == 0
        digest = open_bundle(bundles / "line/1").manifest.files["model.joblib"].sha256
        (path,) = tmp_path.glob(f"blobs/**/{digest}/data")
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        message = refused(muelle("fetch", "--insecure", "--to", tmp_path / "m", url), tmp_path / "m")
        assert message.startswith(f"{url}: model.joblib: its SHA-256 is ")


def test_blobs_that_a_registry_keeps_in_an_object_store(muelle, bundles, s3, bucket, tmp_path):
    """It redirects to signed URLs there, where the registry's credentials have no business."""
    storage = {
        "s3": {
            "region": "us-east-1",
            "regionendpoint": s3.url,
            "bucket": bucket.name,
            "accesskey": ACCESS_KEY,
            "secretkey": SECRET_KEY,
            "secure": False,
            "forcepathstyle": True,
        }
    }
    env = {"MUELLE_REGISTRY_USERNAME": "me", "MUELLE_REGISTRY_PASSWORD": SECRET_KEY}
    with registry(tmp_path, auth=basic(tmp_path), storage=storage) as host:
        url = f"oci://{host}/large:1"
        assert muelle("push", "--insecure", bundles / "large/1", url, env=env).exit_code == 0
        fetched = muelle("fetch", "--insecure", "--to", tmp_path / "m", url, env=env)
        assert fetched.exit_code == 0, fetched.output
    assert same(bundles / "large/1", tmp_path / "m/large/1")


class TestTokens:
    """A registry that sends its clients for a token, as the large ones do."""

    @pytest.fixture
    def ssl(self, certificates, tmp_path) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(certificates.authority), "HOME": str(tmp_path)}

    def test_with_a_password(self, muelle, bundles, line, token_host, tokens, ssl, docker_config, tmp_path):
        url = f"oci://{token_host}/models/line:1"
        env = ssl | docker_config(token_host)
        tokens.asked.clear()
        pushed = muelle("push", bundles / "line/1", url, env=env)
        assert pushed.exit_code == 0, pushed.output
        assert tokens.asked == [{"method": "GET", "service": SERVICE, "scope": "repository:models/line:pull,push"}]
        tokens.asked.clear()
        assert muelle("fetch", "--to", tmp_path / "m", f"{url}@{line}", env=env).exit_code == 0
        assert tokens.asked == [{"method": "GET", "service": SERVICE, "scope": "repository:models/line:pull"}]

    def test_with_a_refresh_token(self, muelle, bundles, token_host, tokens, ssl, docker_config):
        env = ssl | docker_config(token_host, identitytoken=REFRESH_TOKEN)
        tokens.asked.clear()
        assert muelle("push", bundles / "line/1", f"oci://{token_host}/refreshed:1", env=env).exit_code == 0
        (asked,) = tokens.asked
        assert (asked["method"], asked["grant_type"]) == ("POST", "refresh_token")

    def test_a_token_that_has_run_out_is_asked_for_anew(self, muelle, bundles, token_host, tokens, ssl, docker_config):
        env = ssl | docker_config(token_host)
        tokens.asked.clear()
        tokens.seconds = -120
        try:
            url = f"oci://{token_host}/late:1"
            assert "answers 401 Unauthorized" in refused(muelle("push", bundles / "line/1", url, env=env))
        finally:
            tokens.seconds = 300
        assert len(tokens.asked) == 1
        assert muelle("push", bundles / "line/1", url, env=env).exit_code == 0

    def test_with_a_wrong_password(self, muelle, bundles, token_host, tokens, ssl, docker_config):
        env = ssl | docker_config(token_host, password="wrong")
        message = refused(muelle("push", bundles / "line/1", f"oci://{token_host}/x:1", env=env))
        assert "answers 401 Unauthorized: UNAUTHORIZED, wrong password; these credentials may not do that" in message

    def test_without_any(self, muelle, bundles, token_host, ssl):
        message = refused(muelle("push", bundles / "line/1", f"oci://{token_host}/x:1", env=ssl))
        assert "answers 401 Unauthorized" in message
        assert message.endswith(f"; there are no credentials for {token_host}")


def test_a_pull_secret_with_a_helper(muelle, bundles, certificates, tmp_path):
    """A real program on the PATH, as docker-credential-… of the clouds."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "docker-credential-testing"
    answer = json.dumps({"Username": "me", "Secret": SECRET_KEY})
    program.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    program.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "testing"}')
    env = {
        "SSL_CERT_FILE": str(certificates.authority),
        "DOCKER_CONFIG": str(tmp_path),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    with registry(tmp_path, certificates, basic(tmp_path)) as host:
        assert muelle("push", bundles / "line/1", f"oci://{host}/line:1", env=env).exit_code == 0
