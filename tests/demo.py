"""`muelle demo --monitor` as a user starts it, for tests that look at it while it runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

from support import free_port


class Demo:
    """A `muelle demo --monitor`, its output in a file; ends with the block.

    `path` takes the place of the PATH.
    """

    def __init__(self, repository: Path, folder: Path, *flags: str, path: str | None = None) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._command = [sys.executable, "-m", "muelle.cli", "demo", "--monitor", "--port", str(port), *flags]
        self._command += ["--repository", str(repository)]
        self._environ = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
        if path is not None:
            self._environ["PATH"] = path
        self._folder = folder
        self._output = folder / "demo.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                # These tests may themselves run under nohup.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.end(signal.SIGTERM)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    def end(self, number: signal.Signals) -> int:
        """Send a signal; return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def children(self) -> list[int]:
        """Process ids of what it has started, workers included."""
        assert self.process is not None
        found, known = [], [self.process.pid]
        while known:
            pid = known.pop()
            listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            known += map(int, listed)
            found += map(int, listed)
        return found

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Wait until it has printed this."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.output)) is None:
            assert self.process is not None
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)
        return found


def ask(url: str) -> Any:
    """GET a JSON document."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())
