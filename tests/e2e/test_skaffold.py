"""``skaffold.yaml`` with the real skaffold, as docs/how-to/skaffold.md shows it.

``MUELLE_SKAFFOLD`` names it, by default ``skaffold``; where there is none, ``make e2e`` says so and leaves this out.
skaffold's own variables say how images get into the cluster, where its defaults don't do: ``SKAFFOLD_PROFILE=buildah``,
``SKAFFOLD_DEFAULT_REPO``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from cluster import Kube, until
from images import ROOT
from release import Release

Report = Callable[[object], None]

SKAFFOLD = os.environ.get("MUELLE_SKAFFOLD", "skaffold")
#: A build of the whole image, when no layer is in the builder's cache.
BUILD_SECONDS = 1500.0
GUIDE = (ROOT / "docs" / "how-to" / "skaffold.md").read_text()
STATUS = "service/routes/status.py"


class Project:
    """A copy of the repository in which code may be edited, and skaffold run in it."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.folder = folder
        self.namespace = namespace
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        # skaffold names the image after the commit.
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=e2e", "-c", "user.email=e", "commit", "-qm", "e2e"],
        ):
            subprocess.run(["git", *command], cwd=folder, check=True)

    def command(self, text: str) -> list[str]:
        """Return a command of the guide, with the profiles of the environment beside its own, in our namespace."""
        assert text in GUIDE, f"not in the guide: {text}"
        program, verb, *rest = text.split()
        assert program == "skaffold"
        own = [rest[i + 1] for i, word in enumerate(rest) if word == "-p"]
        kept = [word for i, word in enumerate(rest) if word != "-p" and (i == 0 or rest[i - 1] != "-p")]
        profiles = [*filter(None, os.environ.get("SKAFFOLD_PROFILE", "").split(",")), *own]
        where = ["-n", self.namespace] if verb != "diagnose" else []
        return [SKAFFOLD, verb, *kept, *(["-p", ",".join(profiles)] if profiles else []), *where]

    def run(self, text: str, *more: str, seconds: float = 300.0) -> str:
        """Run a command of the guide to its end and return what it printed."""
        command = [*self.command(text), *more]
        done = subprocess.run(
            command, cwd=self.folder, env=environ(), capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def replace(self, file: str, before: str, after: str) -> None:
        """Edit a file as an editor does: a new one takes the old one's place."""
        path = self.folder / file
        text = path.read_text()
        assert before in text
        new = path.with_name(f".{path.name}.new")
        new.write_text(text.replace(before, after))
        new.replace(path)


class Dev:
    """A running ``skaffold dev``."""

    def __init__(self, project: Project) -> None:
        command = [*project.command("skaffold dev"), "--status-check", "--update-check=false"]
        self._process = subprocess.Popen(
            command,
            cwd=project.folder,
            env=environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()

    def interrupt(self) -> int:
        """Press Ctrl-C, as a terminal does: for its whole group; return the exit code."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            code = self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise
        self._reader.join(10)
        assert self._process.stdout
        self._process.stdout.close()
        return code

    def said(self, pattern: str) -> re.Match[str] | None:
        """Return the first line that has it, if any."""
        found = (re.search(pattern, line) for line in list(self.lines))
        return next(filter(None, found), None)

    def wait(self, pattern: str, seconds: float) -> re.Match[str]:
        """Wait for a line; the match is the value."""

        def seen() -> re.Match[str] | None:
            match = self.said(pattern)
            if match is None and self._process.poll() is not None:
                pytest.fail(f"skaffold dev ended:\n{self.tail()}")
            return match

        try:
            found = until(seen, f"{pattern!r} from skaffold dev", seconds, 0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from error
        assert found
        return found

    def tail(self) -> str:
        """Return its last lines."""
        return "".join(self.lines[-40:])

    def _read(self) -> None:
        assert self._process.stdout
        self.lines.extend(self._process.stdout)


def environ() -> dict[str, str]:
    """Return skaffold's environment: its profiles stand on the command line."""
    return {key: value for key, value in os.environ.items() if key != "SKAFFOLD_PROFILE"}


@pytest.fixture(scope="module")
def project(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The repository as it is now, committed."""
    return Project(tmp_path_factory.mktemp("project"), namespace)


@pytest.fixture(scope="module")
def built(project: Project) -> Path:
    """What skaffold has built, as it wrote it down."""
    project.run("skaffold build --file-output build.json", seconds=BUILD_SECONDS)
    return project.folder / "build.json"


def deployed(kube: Kube, namespace: str) -> Release:
    """Return the release that skaffold made, to look at and ask."""
    return Release(kube, None, "muelle", namespace, {})  # type: ignore[arg-type]  # nothing of images is asked


def answer(url: str) -> Any:
    """Ask as the guide does, and return the answer; none is not yet one."""
    command = ["curl", "-sS", f"{url}/predict", "-H", "Content-Type: application/json"]
    command += ["-d", '{"features": [5.1, 3.5, 1.4, 0.2]}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def called(url: str) -> str:
    """Return what the status page calls the service; "" while nobody answers."""
    done = subprocess.run(["curl", "-sS", "-m", "5", url], capture_output=True, text=True, timeout=20, check=False)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(done.stdout)["name"])
    return ""


def test_the_configuration_is_understood(project: Project) -> None:
    said = project.run("skaffold diagnose --yaml-only")
    assert "apiVersion: skaffold/v4beta14" in said


def test_rendering_makes_the_charts_objects(project: Project, built: Path) -> None:
    said = project.run("skaffold render --build-artifacts build.json -p gateway")
    (tag,) = [item["tag"] for item in json.loads(built.read_text())["builds"]]
    assert "kind: HTTPRoute" in said
    assert said.count(f"image: {tag}\n") == 2


@pytest.mark.parametrize(
    ("way", "there", "away"),
    [
        ("service", "skaffold run", "skaffold delete"),
        *(
            (way, f"skaffold deploy --build-artifacts build.json -p {way}", f"skaffold delete -p {way}")
            for way in ("replicas", "gateway")
        ),
    ],
)
def test_each_traffic_way_is_deployed_answers_and_goes_again(
    kube: Kube,
    project: Project,
    built: Path,
    namespace: str,
    way: str,
    there: str,
    away: str,
    request: pytest.FixtureRequest,
) -> None:
    if way == "gateway":
        request.getfixturevalue("gateway")
    assert built.is_file()
    project.run(there)
    release = deployed(kube, namespace)
    release.wait_ready("a", {"service": 2, "replicas": 4, "gateway": 2}[way])
    service = kube.get("service", "muelle", namespace)
    assert service["metadata"]["annotations"]["muelle.io/backend"] == way
    with release.forwarded() as url:
        assert answer(url) == {"prediction": 0}
    project.run(away)
    until(lambda: not kube.get("deployment", namespace=namespace)["items"], "nothing left of it", 60)


def test_an_edit_changes_the_answer_in_the_running_pod(
    kube: Kube, project: Project, namespace: str, report: Report
) -> None:
    until(lambda: not kube.get("pods", namespace=namespace)["items"], "an empty namespace", 90)
    with Dev(project) as dev:
        url = dev.wait(r"Port forwarding service/muelle .* -> (http://\S+)", BUILD_SECONDS)[1]
        dev.wait("Watching for changes", 60)
        release = deployed(kube, namespace)
        until(lambda: called(url) == "muelle", "the first answer", 60)
        assert answer(url) == {"prediction": 0}
        pods = release.uids()

        project.replace(STATUS, '"name": "muelle"', '"name": "moored"')
        until(lambda: called(url) == "moored", "the edited answer", 60, 0.1)
        report("edited: the answer has changed")

        right = (project.folder / STATUS).read_text()
        (project.folder / STATUS).write_text(right + "def unfinished(\n")
        dev.wait("waiting for a change", 60)
        (project.folder / STATUS).write_text(right)
        until(lambda: called(url) == "moored", "an answer after the mistake is mended", 60)

        (project.folder / "service" / "harbour.py").write_text('NAME = "harbour"\n')
        project.replace(STATUS, '"name": "moored"', '"name": NAME')
        project.replace(
            STATUS,
            "from muelle import __version__\n",
            "from muelle import __version__\nfrom service.harbour import NAME\n",
        )
        until(lambda: called(url) == "harbour", "an answer from a new module", 60)

        # A file that was synced twice starts the service again.
        until(lambda: answer(url) == {"prediction": 0}, "a prediction after the edits", 60)
        assert release.uids() == pods
        assert release.restarts() == 0
        (pod,) = release.pods()
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert dev.interrupt() == 0
    assert not kube.get("deployment", namespace=namespace)["items"]
