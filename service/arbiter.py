"""gunicorn's arbiter, for a server that nobody finds unable to answer: a worker goes only when another has loaded.

gunicorn tells old workers to stop as soon as it has forked the new ones, which for a model server is long before they
can answer; and it replaces a worker that has answered its share of requests only once it is gone. Here those that are
to go (after a SIGHUP, or because they are worn) serve on until enough others have loaded, and are told to stop then.

When the server as a whole stops, new connections are held off in the kernel before anything else happens. A connection
that the kernel accepts and nobody takes any more is reset when the listening socket is closed; its client has been told
that it is connected, and may have sent its request already.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from typing import Any, Final

from gunicorn import arbiter
from gunicorn.errors import HaltServer

from service.board import SERVING, Board
from service.companions import Companions
from service.deaths import Deaths, ending
from service.succession import Member, decide
from service.worker import STOP_SIGNALS

#: How long after a worker could not start the next one is tried; and after one died that had not answered anybody yet,
#: which may be its model's fault.
_RETRY_SECONDS: Final = 5.0
_DIED_EARLY_SECONDS: Final = 1.0
#: How long companions may take to end at least, when the workers have used up the time that there is.
_COMPANION_SECONDS: Final = 4.0
#: From Linux's asm-generic/socket.h; Python has no name for it.
_SO_ATTACH_FILTER: Final = 26
#: Classic BPF, as (code, jump if true, jump if false, constant): of the flags in a TCP header's byte 13, where SYN is
#: set and ACK is not, keep 0 bytes of the segment, else all.
_NO_NEW_CONNECTIONS: Final = (
    (0x30, 0, 0, 13),
    (0x54, 0, 0, 0x12),
    (0x15, 0, 1, 0x02),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


class Arbiter(arbiter.Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """The process that forks the workers; see the module.

    Parameters
    ----------
    app : Application
        The server.
    companions : Companions, optional
        Started before the workers, let go after them.

    Attributes
    ----------
    board : Board
        How far each worker is.
    """

    reexec_pid: int

    def __init__(self, app: Any, companions: Companions | None = None) -> None:
        super().__init__(app)
        self.board = Board()
        self.companions = Companions() if companions is None else companions
        self._deaths: Deaths | None = None
        # Workers of this age and older are to go.
        self._reloaded_age = 0
        self._next_fork = 0.0
        self._stopping = False

    def start(self) -> None:
        """Listen, and begin to count: the folder of the metrics is empty from here on."""
        super().start()
        self._deaths = Deaths()

    def reload(self) -> None:
        """Replace all workers by ones that look into the repository anew.

        Nothing else can have changed: the settings are the environment, which no process gets anew.
        """
        self.app.forget_selection()
        self._reloaded_age = self.worker_age
        self.cfg.on_reload(self)
        self.manage_workers()

    def manage_workers(self) -> None:
        """Fork what is missing, and tell those to stop that are to go and no longer needed."""
        self.board.keep({worker.slot for worker in self.WORKERS.values()})
        self.app.look_at_keys()
        self.companions.keep(self._leave)
        members = [
            Member(pid, worker.age, self.board[worker.slot], worker.told_to_stop)
            for pid, worker in self.WORKERS.items()
        ]
        decision = decide(members, self.num_workers, self._reloaded_age)
        if time.monotonic() >= self._next_fork:
            self._fork(decision.fork)
        for pid in decision.stop:
            self.WORKERS[pid].told_to_stop = True
            self.kill_worker(pid, signal.SIGTERM)

    def _fork(self, count: int) -> None:
        try:
            for _ in range(count):
                self.spawn_worker()
        except OSError as error:
            # No process or no memory is to be had. gunicorn would end the server with all that serve.
            self.log.error("no worker could be forked: %s; the next try is in %.0f s", error, _RETRY_SECONDS)
            self._next_fork = time.monotonic() + _RETRY_SECONDS

    def spawn_worker(self) -> Any:
        """Fork a worker; it unblocks the signals when it has handlers of its own."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def reap_workers(self) -> None:
        """Bury the dead, and count those whom nobody had told to go.

        gunicorn's own keeps to itself how a worker ended, and takes companions for strangers.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.reexec_pid:
                self.reexec_pid = 0
            elif not self.companions.bury(pid, status):
                self._bury_worker(pid, status)

    def stop(self, graceful: bool = True) -> None:
        """Stop all workers; gracefully, so that every client that got a connection gets its answer."""
        self._stopping = True
        deadline = time.monotonic()
        if graceful:
            deadline += self.cfg.graceful_timeout
            for listener in self.LISTENERS:
                hold_off_new_connections(listener.sock)
        super().stop(graceful)
        # Now that they have written their last.
        self.companions.stop(max(_COMPANION_SECONDS, deadline - time.monotonic()))

    def _bury_worker(self, pid: int, status: int) -> None:
        """Book a worker that is gone. One that could not start ends the server only where nobody serves."""
        worker = self.WORKERS.pop(pid, None)
        if worker is None:
            # A process that was handed to us as we are process 1, such as a probe's.
            self.log.debug("reaped process %d, a stranger", pid)
            return
        end = ending(status, told=self._stopping or worker.told_to_stop, stuck=worker.aborted)
        self.log.log(end.level, "worker %d (pid %d) %s", worker.slot, pid, end.how)
        if end.failure is not None and self._deaths is not None:
            self._deaths.count(end.failure)
        had_loaded = self.board[worker.slot] in SERVING
        worker.tmp.close()
        self.cfg.child_exit(self, worker)
        if end.failure is None or had_loaded:
            return
        if end.failure != "boot":
            self._next_fork = time.monotonic() + _DIED_EARLY_SECONDS
            return
        if not any(self.board[other.slot] in SERVING for other in self.WORKERS.values()):
            raise HaltServer("No worker could start.", os.waitstatus_to_exitcode(status))
        self.log.error("The others go on; the next try is in %.0f s.", _RETRY_SECONDS)
        self._next_fork = time.monotonic() + _RETRY_SECONDS

    def _leave(self) -> None:
        """Close in a new process that is no worker what belongs to the server."""
        for listener in self.LISTENERS:
            listener.close()
        for worker in self.WORKERS.values():
            worker.tmp.close()


def hold_off_new_connections(listener: socket.socket) -> None:
    """Let the kernel ignore whoever wants a new connection here, while those that are half made are completed.

    Who is ignored tries again a second later, and is refused if the socket has been closed by then. Where there are no
    such filters (gVisor, other systems than Linux), nothing changes.
    """
    if sys.platform != "linux":
        return
    code = b"".join(_Instruction(*instruction) for instruction in _NO_NEW_CONNECTIONS)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(_NO_NEW_CONNECTIONS), ctypes.addressof(buffer))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
    except OSError:
        return


class _Instruction(ctypes.Structure):
    """``struct sock_filter``."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))
