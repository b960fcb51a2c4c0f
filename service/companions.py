"""Companions: small processes beside the workers that do one job each, from the server's start to its end.

The arbiter forks them, so they share its pages and are counted with it; starts one that has died anew, later each time;
and lets them go when the last worker has gone. Each has a slot of its own, by its name, for metrics, CPU and memory.

What tells them to stop is the end of a pipe that the arbiter alone holds: it is closed when the server has stopped, and
by the kernel when the arbiter dies, whatever kills it. Signals are not for them. Ctrl-C in a terminal, and a service
manager that stops a whole group, reach them at the same moment as the workers, which have their last word yet.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muelle.errors import MuelleError
from service.deaths import signal_name
from service.leaving import end_process
from service.procfs import claim_slot
from service.slots import install_slot_values, mark_slot_dead

_log = logging.getLogger(__name__)

#: What the arbiter listens to, and groups of processes get.
_NOT_FOR_US: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
#: The pauses before one that died is started anew: twice as long each time, up to the longest.
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
#: One that lived for so long died of something new.
_LONG_LIFE_SECONDS: Final = 60.0
#: How long one whose arbiter is gone may take to end; nobody else would kill it.
_LAST_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.02
#: Its exit code when it has said itself why it ends.
_SAID_WHY: Final = 70


@dataclass(frozen=True)
class Companion:
    """One job.

    Attributes
    ----------
    name : str
        Its slot in the metrics: lower-case letters.
    run : callable
        Does the job until the event is set, then returns soon. An exception ends the process; it is started anew.
    sockets : tuple of socket
        Made in the arbiter, so that a port that is taken is an error at the start, and connections wait while the
        companion is started anew. All other processes close them.
    """

    name: str
    run: Callable[[threading.Event], None]
    sockets: tuple[socket.socket, ...] = ()


class _Post:
    """A companion and, while it lives, its process."""

    def __init__(self, companion: Companion) -> None:
        self.companion = companion
        self.pid = 0
        self.started = 0.0
        self.deaths = 0
        self.next_start = 0.0


class Companions:
    """All companions of a server, in its arbiter.

    Parameters
    ----------
    companions : iterable of Companion
        Names differ.
    directory : Path
        The metrics folder.
    """

    def __init__(self, companions: Iterable[Companion] = (), directory: Path = Path()) -> None:
        self._posts = [_Post(companion) for companion in companions]
        self._directory = directory
        self._stopped = False
        # Nobody writes: its end is the message.
        self._told, self._hold = os.pipe() if self._posts else (-1, -1)

    def keep(self, leave: Callable[[], None]) -> None:
        """Start those that don't live, when their time has come; called about once a second.

        Parameters
        ----------
        leave : callable
            Gives back, in the new process, what the arbiter holds and it doesn't need.
        """
        now = time.monotonic()
        for post in self._posts:
            if not (self._stopped or post.pid) and now >= post.next_start:
                post.started = now
                try:
                    post.pid = self._fork(post.companion, leave)
                except OSError as error:
                    self._lost(post, f"could not be started: {error}")

    def bury(self, pid: int, status: int) -> bool:
        """Say that the arbiter has reaped this process; return whether it was a companion.

        Parameters
        ----------
        pid, status : int
            What ``os.waitpid`` returned.
        """
        post = next((post for post in self._posts if post.pid == pid), None)
        if post is None:
            return False
        post.pid = 0
        mark_slot_dead(self._directory, post.companion.name)
        if not self._stopped:
            self._lost(post, None if os.waitstatus_to_exitcode(status) == _SAID_WHY else _ending(status))
        return True

    def let_go(self) -> None:
        """Close in a worker what the arbiter holds for its companions."""
        self._close_sockets()
        if self._posts:
            os.close(self._told)
            os.close(self._hold)

    def stop(self, seconds: float) -> None:
        """Let all end, and kill those that take longer than this; may be called again."""
        if self._stopped:
            return
        self._stopped = True
        self.let_go()
        deadline = time.monotonic() + seconds
        while (living := self._living()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        for post in living:
            _log.error("companion %s (pid %d): not done after %.0f s, killed", post.companion.name, post.pid, seconds)
            with suppress(ProcessLookupError):
                os.kill(post.pid, signal.SIGKILL)
            os.waitpid(post.pid, 0)
            post.pid = 0

    def _living(self) -> list[_Post]:
        """Return those that have not ended, after reaping those that have."""
        for post in self._posts:
            if post.pid:
                with suppress(ChildProcessError):
                    pid, status = os.waitpid(post.pid, os.WNOHANG)
                    if pid:
                        self.bury(pid, status)
        return [post for post in self._posts if post.pid]

    def _lost(self, post: _Post, how: str | None) -> None:
        now = time.monotonic()
        if now - post.started >= _LONG_LIFE_SECONDS:
            post.deaths = 0
        pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2**post.deaths)
        # A bound, since one that dies for days would make a number of a thousand digits of it.
        post.deaths = min(post.deaths + 1, 16)
        post.next_start = now + pause
        if how is not None:
            _log.error("companion %s %s; the next start is in %.0f s", post.companion.name, how, pause)

    def _close_sockets(self, but: Companion | None = None) -> None:
        for post in self._posts:
            if post.companion is not but:
                for listener in post.companion.sockets:
                    listener.close()

    def _fork(self, companion: Companion, leave: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            # What comes before this ends in the arbiter's handlers, which only take a note that nobody reads here.
            for number in _NOT_FOR_US:
                signal.signal(number, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._hold)
            self._close_sockets(but=companion)
            leave()
            code = self._work(companion)
        finally:
            end_process(code)

    def _work(self, companion: Companion) -> int:
        """Be the companion; return the exit code."""
        stop = threading.Event()
        try:
            # A collection would write to the objects that are shared with the arbiter, and copy them all.
            gc.freeze()
            claim_slot(self._directory, companion.name, os.getpid())
            install_slot_values(self._directory, lambda: companion.name)
            threading.Thread(target=_wait_for_the_end, args=(self._told, stop), name="end", daemon=True).start()
            companion.run(stop)
        except MuelleError as error:
            _log.error("companion %s failed: %s", companion.name, error)
            return _SAID_WHY
        except Exception:  # noqa: BLE001 (whatever it is, it is logged here, and the arbiter starts another)
            _log.exception("companion %s failed", companion.name)
            return _SAID_WHY
        return 0


def _wait_for_the_end(told: int, stop: threading.Event) -> None:
    os.read(told, 1)
    stop.set()
    time.sleep(_LAST_SECONDS)
    os._exit(1)


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"ended by itself with exit code {code}" if code >= 0 else f"was killed by {signal_name(-code)}"
