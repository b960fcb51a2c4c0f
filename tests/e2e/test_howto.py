"""The commands of the user documents, run as they stand there."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Kube, until
from howto import Block, blocks, complaint, environ, masked, missing, run, script
from images import ROOT, Images
from release import GATEWAY, GATEWAY_URL, has_gateway
from support import free_port
from watching import stand_ins

Report = Callable[[object], None]

DOCUMENTS = [
    "README.md",
    "docs/how-to/deploy-to-a-cluster.md",
    "docs/how-to/blue-green.md",
    "docs/how-to/canary.md",
    "docs/how-to/upgrade.md",
    "docs/how-to/rollback.md",
    "docs/how-to/troubleshooting.md",
    "docs/how-to/monitoring.md",
]
#: What a reader sees and uses of a clone.
OF_THE_CLONE = ("charts", "k8s", "examples")
SECONDS = 2400.0
SHORT_DRAIN = """\
# No caller keeps a connection open here, so there is none to wait for.
muelle() {
  case $1 in
    promote | rollback) command muelle "$@" --drain-seconds 2 ;;
    # A reader takes a second; the gateway may say that it has a route before all of it goes by that.
    traffic) command muelle "$@" && sleep 5 ;;
    *) command muelle "$@" ;;
  esac
}
"""


@pytest.fixture
def namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A document's own namespace, in which Pod Security is restricted."""
    name = f"e2e-howto-{Path(request.getfixturevalue('document')).stem.lower()}"
    kube.run("delete", "namespace", name, "--ignore-not-found", "--wait", "--timeout=120s", timeout=140)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    kube.run("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def kubeconfig(kube: Kube, namespace: str, tmp_path: Path) -> Path:
    """A kube config of its own, whose context has that namespace."""
    path = tmp_path / "kubeconfig"
    path.write_text(kube.run("config", "view", "--minify", "--flatten"))
    kube.run("config", "set-context", "--current", "--namespace", namespace, f"--kubeconfig={path}")
    return path


def what_there_is(kube: Kube) -> set[str]:
    """Return the words of the blocks that can be run here."""
    found = {"fails"}
    if has_gateway(kube):
        found.add("gateway")
    if kube.exists("crd", "prometheusrules.monitoring.coreos.com"):
        found.add("operator")
    # Helm 3 overwrites where Helm 4, by server-side apply, sees a conflict.
    if not kube.helm("version", "--short").startswith("v3"):
        found.add("helm4")
    return found


def names(images: Images, namespace: str) -> dict[str, str]:
    """Return what stands here for the names in the documents."""
    gateway = json.dumps(dict(zip(("namespace", "name"), GATEWAY.split("/"), strict=True)))
    port, prometheus, alertmanager = free_port(), free_port(), free_port()
    return {
        "my-models:1": images.e2e,
        "my-models:2": images.e2e_2,
        'repository: my-models, tag: "1"': "repository: {}, tag: {}".format(*images.e2e.split(":")),
        "image.tag=2": f"image.tag={images.e2e_2.partition(':')[2]}",
        "{name: local, namespace: envoy-gateway-system}": gateway,
        "models.example.com": f"{namespace}.e2e",
        "8080:80": f"{port}:80",
        "localhost:8080": f"localhost:{port}",
        "--set standalone.enabled=true": f"--set standalone.enabled=true {stand_ins()}",
        "monitoring-prometheus 9090": f"monitoring-prometheus {prometheus}:9090",
        "localhost:9090": f"localhost:{prometheus}",
        "monitoring-alertmanager 9093": f"monitoring-alertmanager {alertmanager}:9093",
        "localhost:9093": f"localhost:{alertmanager}",
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_only_a_reader_can_run_is_well_formed(document: str, report: Report) -> None:
    parts = [part for part in blocks((ROOT / document).read_text()) if part.language == "console"]
    report(f"{document}: {len(parts)} blocks are not run: lines {', '.join(str(part.line) for part in parts) or '-'}")
    assert [found for part in parts if (found := complaint(part.text))] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_document_does_what_it_says(
    document: str, kube: Kube, images: Images, namespace: str, kubeconfig: Path, tmp_path: Path, report: Report
) -> None:
    there = what_there_is(kube)
    parts = [part for part in blocks((ROOT / document).read_text()) if part.language != "console"]
    chosen = [part for part in parts if part.words <= there]
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in OF_THE_CLONE:
        (folder / name).symlink_to(ROOT / name)
    done = run(
        script(chosen, names(images, namespace), SHORT_DRAIN),
        folder,
        environ(KUBECONFIG=str(kubeconfig), GATEWAY=GATEWAY_URL),
        SECONDS,
    )
    commands = sum(len(part.text.splitlines()) for part in chosen if part.language == "sh")
    report(
        f"{document}: {commands} lines run, {len(parts) - len(chosen)} blocks left out, for which something is missing"
    )
    last = max(done.outputs, default=0)
    assert done.code == 0, (
        f"{document}:{last}: exit code {done.code}\n{done.outputs.get(last)}\n{kube.events(namespace)}"
    )
    for part in chosen:
        lost = missing(part.expected, done.outputs[part.line])
        assert lost is None, f"{document}:{part.line}: did not print {lost!r}, but\n{done.outputs[part.line]}"


def test_blocks_are_found_with_their_words_and_their_output() -> None:
    text = "a\n```sh fails\nfalse\n```\nb\n```text\nno …\n```\n<!-- run\nx=1\n-->\n"
    text += "```\nloose\n```\n```console\nkind\n```\n"
    assert blocks(text) == [
        Block(2, "sh", frozenset({"fails"}), "false\n", ("no …",)),
        Block(9, "run", frozenset(), "x=1\n"),
        Block(15, "console", frozenset(), "kind\n"),
    ]


def test_a_block_without_an_end_is_refused() -> None:
    with pytest.raises(AssertionError, match="has no"):
        blocks("```sh\ntrue\n")


def test_output_must_have_the_lines_in_order_and_may_have_more() -> None:
    output = "x\nat 2026-11-21T10:00:00Z  muelle-a-dcb9db595-zt5jk\nb   1 of 2\n"
    assert missing(["at 2020-01-01T00:00:00Z muelle-a-57d69799f4-4lvgn", "b … 2"], output) is None
    assert missing(["b 1 of 2", "x"], output) == "x"
    assert missing(["b 1 of 3"], output) == "b 1 of 3"
    assert masked("sha256:2e2fdc01dba0") == "sha256:HEX"


def test_a_session_shares_its_variables_stops_at_a_failure_and_ends_what_it_began(tmp_path: Path) -> None:
    parts = [
        Block(1, "sh", frozenset(), "exec 9>held\nflock 9\nsleep 600 & began=it\n"),
        Block(2, "sh", frozenset({"fails"}), "ls nowhere\n"),
        Block(3, "sh", frozenset(), "echo $began\nfalse\n"),
        Block(4, "sh", frozenset(), "echo never\n"),
    ]
    done = run(script(parts, {}), tmp_path, environ(KUBECONFIG=str(tmp_path / "none")), 30)
    assert (done.code, set(done.outputs)) == (1, {1, 2, 3})
    assert "nowhere" in done.outputs[2]
    assert done.outputs[3] == "it\n"
    until(lambda: is_unlocked(tmp_path / "held"), "what ran on in the background ended", 10)


def is_unlocked(path: Path) -> bool:
    """Whether no process holds a lock on a file."""
    with path.open() as file, contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def test_a_block_that_should_fail_and_does_not_ends_the_session(tmp_path: Path) -> None:
    done = run(
        script([Block(7, "sh", frozenset({"fails"}), "true\n")], {}),
        tmp_path,
        environ(KUBECONFIG=str(tmp_path / "none")),
        30,
    )
    assert (done.code, done.outputs) == (99, {7: "line 7: expected to fail\n"})
