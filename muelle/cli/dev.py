"""``muelle dev``: serve, and start anew when the code changes; `skaffold dev` runs it in the pod."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from muelle.cli.output import note
from muelle.errors import MuelleError

#: What is watched, and what a source folder must hold: a package that lay there in part would hide the whole one.
_PACKAGES: Final = ("muelle", "service", "training")
#: Between two looks at the files: some 150 of them, a few milliseconds a look.
_PAUSE_SECONDS: Final = 0.3

_Looks = dict[Path, tuple[int, int]]


@click.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--source",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to run the code from; what it lacks is copied from the installed code.  [default: the installed code]",
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[SERVE FLAGS]...")
def dev(source: Path | None, flags: tuple[str, ...]) -> None:
    """Serve, and start anew whenever a .py file of Muelle changes: for work on Muelle itself.

    Takes every flag of `muelle serve`. Code that fails to start is not the end: it waits for the next change.

    \b
    Example:
      muelle dev --port 5000
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    installed = _installed()
    # No bytecode: it is told from its source by whole seconds and size, and an edit can keep both.
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    if source is None:
        folders = list(installed.values())
    else:
        folders = _fill(source.resolve(), installed)
        # gunicorn puts the folder where one stands before all others, unless it is named already.
        environ["PYTHONPATH"] = os.pathsep.join([str(source.resolve()), str(Path.cwd())])
    command = [sys.executable, "-P", "-m", "muelle.cli", "serve", *flags]
    sys.exit(_Restarting(command, environ, folders).run())


def _installed() -> dict[str, Path]:
    """Return where each package is that is installed."""
    found = {name: importlib.util.find_spec(name) for name in _PACKAGES}
    return {name: Path(spec.origin).parent for name, spec in found.items() if spec and spec.origin}


def _fill(source: Path, installed: Mapping[str, Path]) -> list[Path]:
    """Copy the packages that a source folder lacks, and return all of them there."""
    folders = []
    for name, origin in installed.items():
        folder = source / name
        if not folder.exists():
            # Renamed when complete: what a killed start leaves behind must not look like a whole package.
            part = source / f".{name}.part"
            try:
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(origin, part, ignore=shutil.ignore_patterns("__pycache__"))
                part.rename(folder)
            except OSError as error:
                raise MuelleError(f"{folder}: cannot hold the code: {error}") from error
        folders.append(folder)
    return folders


class _Restarting:
    """A service process, and another in its place after each change of a file.

    Parameters
    ----------
    command : sequence of str
        What starts the service.
    environ : mapping
        Its environment.
    folders : sequence of Path
        Where the files are that count.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folders: Sequence[Path]) -> None:
        self._command = command
        self._environ = environ
        self._folders = folders
        self._leaving = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Serve until a SIGTERM or Ctrl-C; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        signal.signal(signal.SIGHUP, self._pass_on)
        seen = self._look()
        child = self._start()
        ended = False
        while not self._leaving:
            time.sleep(_PAUSE_SECONDS)
            now = self._look()
            if now != seen:
                seen, changed = self._settled(now), _changed(seen, now)
                note(f"changed: {', '.join(changed)}; starting anew")
                # SIGINT ends it at once; nobody needs this one's last answers.
                _end(child, signal.SIGINT)
                child, ended = self._start(), False
            elif not ended and child.poll() is not None:
                ended = True
                note(f"the service ended with exit code {child.returncode}; waiting for a change")
        return _end(child, signal.SIGTERM)

    def _start(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(self._command, env=dict(self._environ))  # noqa: S603  # no shell
        return self._child

    def _leave(self, *_: Any) -> None:
        self._leaving = True

    def _pass_on(self, number: int, _: Any) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _look(self) -> _Looks:
        """Return time and size of each file; one that is gone the next moment is left out."""
        looks = {}
        for folder in self._folders:
            for path in folder.rglob("*.py"):
                try:
                    status = path.stat()
                except OSError:
                    continue
                looks[path] = (status.st_mtime_ns, status.st_size)
        return looks

    def _settled(self, looks: _Looks) -> _Looks:
        """Wait until nothing changes any more: an editor or a sync writes several files one after the other."""
        while not self._leaving:
            time.sleep(_PAUSE_SECONDS)
            now = self._look()
            if now == looks:
                break
            looks = now
        return looks


def _changed(before: _Looks, after: _Looks) -> list[str]:
    return sorted({path.name for path, _ in before.items() ^ after.items()})


def _end(child: subprocess.Popen[bytes], number: int) -> int:
    if child.poll() is None:
        child.send_signal(number)
    return child.wait()
