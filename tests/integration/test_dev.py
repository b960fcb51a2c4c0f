"""``muelle dev``: an edit of the code changes the answer, without anybody starting anything."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import Server

TWELVE = {"output": [12.0]}


class DevServer(Server):
    """A `muelle dev` whose code lies in a folder of its own."""

    def __init__(self, models: Path, folder: Path) -> None:
        super().__init__(models, folder, {"MUELLE_WORKERS": "1"})
        self.source = folder / "source"

    def __enter__(self):
        with self.log_path.open("ab") as log:
            command = [sys.executable, "-m", "muelle.cli", "dev", "--source", str(self.source), "--threads", "1"]
            self.process = subprocess.Popen(command, env=self._environ, stdout=log, stderr=log)
        return self

    def edit(self, file: str, before: str, after: str) -> None:
        """Replace a text in a file, as `skaffold dev` brings it: in place of the old file."""
        path = self.source / file
        text = path.read_text()
        assert before in text
        path.unlink()
        path.write_text(text.replace(before, after))

    def name(self) -> str:
        """What the status page calls the service."""
        return str(json.loads(self.get("/").body)["name"])


@pytest.fixture
def server(repository, tmp_path):
    with DevServer(repository, tmp_path) as server:
        server.wait_ready()
        yield server


def test_an_edit_changes_the_answer(server):
    assert server.name() == "muelle"
    assert server.post("/models/linear/predict", {"input": [6]}).json == TWELVE
    server.edit("service/routes/status.py", '"name": "muelle"', '"name": "moored"')
    server.wait_for(lambda: server.name() == "moored", "the edited answer")
    server.wait_ready()
    assert server.post("/models/linear/predict", {"input": [6]}).json == TWELVE
    assert "changed: status.py; starting anew" in server.log_path.read_text()


def test_code_that_does_not_start_is_waited_for(server):
    page = server.source / "service" / "routes" / "status.py"
    right = page.read_text()
    page.write_text(right + "def unfinished(\n")
    server.wait_for(lambda: "waiting for a change" in server.log_path.read_text(), "over the broken code")
    with pytest.raises(OSError, match="refused"):
        server.get("/livez")
    page.write_text(right)
    server.wait_ready()


def test_it_ends_with_its_service(server):
    assert server.stop() == 0
    with contextlib.suppress(http.client.HTTPException), pytest.raises(OSError, match="refused"):
        server.get("/livez")


def test_a_second_start_keeps_what_was_edited(repository, tmp_path):
    with DevServer(repository, tmp_path) as server:
        server.wait_ready()
        server.edit("service/routes/status.py", '"name": "muelle"', '"name": "kept"')
        server.wait_for(lambda: server.name() == "kept", "the edited answer")
    with DevServer(repository, tmp_path) as server:
        server.wait_ready()
        assert server.name() == "kept"


def test_a_hangup_reaches_the_service(server):
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(lambda: "Hang up: Master" in server.log_path.read_text(), "reloading")
    server.wait_ready()


def test_a_folder_that_cannot_hold_the_code_is_told(repository, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "muelle.cli", "dev", "--source", str(blocked / "source")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot hold the code" in done.stderr
