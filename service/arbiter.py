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
import signal
import socket
import sys
import time
from typing import Any, Final

from gunicorn import arbiter
from gunicorn.errors import HaltServer

from service.board import SERVING, Board
from service.succession import Member, decide
from service.worker import STOP_SIGNALS

#: How long after a worker could not start the next one is tried.
_RETRY_SECONDS: Final = 5.0
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

    Attributes
    ----------
    board : Board
        How far each worker is.
    """

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.board = Board()
        # Workers of this age and older are to go.
        self._reloaded_age = 0
        self._next_fork = 0.0
        self._stopping = False

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
        members = [
            Member(pid, worker.age, self.board[worker.slot], worker.told_to_stop)
            for pid, worker in self.WORKERS.items()
        ]
        decision = decide(members, self.num_workers, self._reloaded_age)
        if time.monotonic() >= self._next_fork:
            for _ in range(decision.fork):
                self.spawn_worker()
        for pid in decision.stop:
            self.WORKERS[pid].told_to_stop = True
            self.kill_worker(pid, signal.SIGTERM)

    def spawn_worker(self) -> Any:
        """Fork a worker; it unblocks the signals when it has handlers of its own."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def reap_workers(self) -> None:
        """Bury the dead. One that could not start ends the server only where nobody serves."""
        try:
            super().reap_workers()
        except HaltServer as halt:
            if self._stopping:
                return
            if not any(self.board[worker.slot] in SERVING for worker in self.WORKERS.values()):
                raise
            self.log.error("%s The others go on; the next try is in %.0f s.", halt.reason, _RETRY_SECONDS)
            self._next_fork = time.monotonic() + _RETRY_SECONDS

    def stop(self, graceful: bool = True) -> None:
        """Stop all workers; gracefully, so that every client that got a connection gets its answer."""
        self._stopping = True
        if graceful:
            for listener in self.LISTENERS:
                hold_off_new_connections(listener.sock)
        super().stop(graceful)


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
