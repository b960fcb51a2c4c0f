"""What ``muelle fetch`` and ``muelle push`` share: options, a bar on a terminal, and an end at once when told to."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from muelle.cli.output import note
from muelle.store.transfer import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

F = TypeVar("F", bound=Callable[..., Any])

#: As a shell says of a program that was ended by this signal.
_TERMINATED: Final = 128 + signal.SIGTERM


def store_options(command: F) -> F:
    """Add ``--retry-seconds`` and ``--insecure``."""
    command = click.option(
        "--insecure",
        is_flag=True,
        help="Take plain http too: for http:// URLs, endpoints of object stores, and registries that do not speak TLS.",
    )(command)
    return click.option(
        "--retry-seconds",
        type=click.FloatRange(min=0, max=3600),
        default=30,
        show_default=True,
        help="How long to go on when a store can't be reached or says that it is busy.",
    )(command)


class _Bar:
    """A bar of bytes on a terminal."""

    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar = bar
        self._task = task
        self._total = 0
        self._lock = threading.Lock()

    def expect(self, size_bytes: int) -> None:
        """Make the bar longer."""
        with self._lock:
            self._total += size_bytes
            self._bar.update(self._task, total=self._total)

    def advance(self, size_bytes: int) -> None:
        """Move it."""
        self._bar.advance(self._task, size_bytes)

    def say(self, message: str) -> None:
        """Print a line above it."""
        note(message)


class _Lines:
    """No bar: what is worth a line in a log."""

    def expect(self, size_bytes: int) -> None:
        """Do nothing."""

    def advance(self, size_bytes: int) -> None:
        """Do nothing."""

    def say(self, message: str) -> None:
        """Print a line."""
        note(message)


@contextlib.contextmanager
def watching(what: str) -> Iterator[Progress]:
    """Show how far it is, as long as a person watches."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, bar.add_task(escape(what), total=None))


class _Terminated(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """End at Ctrl-C and SIGTERM as soon as what is half done is cleared away.

    The first process of a container gets no SIGTERM that it has no handler for. And a thread that waits for a server
    can't be interrupted: leaving the ordinary way would wait for it.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt:
        _end(128 + signal.SIGINT)
    except _Terminated:
        _end(_TERMINATED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _end(code: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        note("stopped; nothing half done was left behind")
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
