"""What happens at each turn of gunicorn's life: worker slots, shared metrics, who may listen before it has loaded."""

from __future__ import annotations

import atexit
import fcntl
import logging
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from service.app import stop
from service.board import SERVING, Board, State
from service.leaving import end_process
from service.memory import forget
from service.models import Models
from service.procfs import claim_slot
from service.settings import Settings
from service.slots import install_slot_values, lowest_free_slot, mark_slot_dead, prepare_directory

_log = logging.getLogger(__name__)

#: What the folders are called that servers make for themselves.
_FOLDER: Final = "muelle-metrics-"
#: The file in such a folder that is locked as long as one of its server's processes lives.
_LOCK: Final = "server.lock"
#: How often a worker that loads before it listens looks whether it is done, and tells the arbiter that it lives.
_PAUSE_SECONDS: Final = 0.02
#: How long new connections wait for a worker that loads when all others have died; below what clients and probes wait.
_PATIENCE_SECONDS: Final = 5.0


class Hooks:
    """gunicorn's hooks; gunicorn.conf.py names them.

    Parameters
    ----------
    settings : Settings
        Where the metrics folder is.
    """

    def __init__(self, settings: Settings) -> None:
        self._slot: int | None = None
        self.directory = settings.metrics_dir or _temporary_folder()
        install_slot_values(self.directory, lambda: self._slot)

    def on_starting(self, server: Any) -> None:
        """Begin with an empty folder, and without those that killed servers left beside it."""
        # First, as they may have taken all the room.
        _remove_left_behind(self.directory.parent)
        prepare_directory(self.directory)
        forget(self.directory)
        for path in self.directory.glob("selection-*.json"):
            path.unlink(missing_ok=True)

    def pre_fork(self, server: Any, worker: Any) -> None:
        """Choose the worker's slot, and say whether it is the first: nobody else is there to answer."""
        others = [other.slot for other in server.WORKERS.values()]
        alone = not any(server.board[slot] in (State.FIRST, *SERVING) for slot in others)
        worker.slot = lowest_free_slot(others)
        worker.board = server.board
        server.board[worker.slot] = State.FIRST if alone else State.LOADING

    def post_fork(self, server: Any, worker: Any) -> None:
        """Take the slot, in the worker, before it makes any metric; leave to the companions what is theirs."""
        server.companions.let_go()
        self._slot = worker.slot
        claim_slot(self.directory, worker.slot, os.getpid())

    def post_worker_init(self, worker: Any) -> None:
        """Let every worker but the first load before it listens.

        The very first one listens at once, so that probes are answered while it loads; one that takes the place of the
        last that served does so after a while, since connections that wait a little are better off than refused ones.
        Every other one, whether beside it, in a dead one's place, or after a reload, would answer 503 in the midst of
        good answers if it listened too early. For the same reason none of them listens before the first one has loaded.
        """
        models, board, slot = worker.wsgi.extensions["muelle"].models, worker.board, worker.slot
        if board[slot] == State.FIRST:
            patience = 0.0 if worker.age == 1 else _PATIENCE_SECONDS
            _wait(worker, lambda: models.loading, patience)
            arguments = (models, board, slot)
            threading.Thread(target=_tell_when_loaded, args=arguments, name="first-loaded", daemon=True).start()
            return
        _wait(worker, lambda: models.loading)
        # Before it waits again: the arbiter may have to tell the first one to stop, which loads forever.
        board[slot] = State.LOADED
        _wait(worker, lambda: board.any(State.FIRST))

    def worker_exit(self, server: Any, worker: Any) -> None:
        """Carry over the last counts and log lines, in the worker; it ends here."""
        if worker.pid != os.getpid():
            # gunicorn calls this in the arbiter too, for a worker that it finds gone: the arbiter goes on.
            return
        leaving = sys.exc_info()[1]
        try:
            app = getattr(worker, "wsgi", None)
            if app is not None:
                stop(app)
        finally:
            status = leaving.code or 0 if isinstance(leaving, SystemExit) else 1
            end_process(status & 0xFF if isinstance(status, int) else 1)

    def child_exit(self, server: Any, worker: Any) -> None:
        """Book a worker that has been reaped, in the arbiter."""
        mark_slot_dead(self.directory, worker.slot)
        server.board[worker.slot] = State.FREE


@cache
def _temporary_folder() -> Path:
    """Return the one folder of this process; a SIGHUP, which reads the configuration anew, goes on with it.

    It is locked from before it has its name until the last of the processes is gone that inherit the lock: the arbiter,
    its workers and its companions. So another server can tell that nobody needs it any more.
    """
    made = Path(tempfile.mkdtemp(prefix="muelle-starting-"))
    lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        # A file system without locks. A folder without the file is left alone.
        (made / _LOCK).unlink()
    folder = made.rename(made.with_name(made.name.replace("muelle-starting-", _FOLDER)))
    # Not in gunicorn's on_exit, which is not called when the port is taken.
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, pid: int) -> None:
    # Workers inherit what the arbiter has registered.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind(parent: Path) -> None:
    """Remove the folders of servers that were killed, all processes at once, so that none of them could.

    In a pod they would pile up: its /tmp outlives a container that the kernel kills for its memory.
    """
    for folder in parent.glob(f"{_FOLDER}*"):
        # Another user's, one without a lock, one whose server lives, one that another server is removing.
        with suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_unless_rows_wait(folder)
            finally:
                os.close(lock)


def _remove_unless_rows_wait(folder: Path) -> None:
    spool = folder / "prediction-log"
    if spool.is_dir() and any(spool.iterdir()):
        _log.warning("%s holds rows of the prediction log that a killed server did not ship; it is left there", spool)
        return
    shutil.rmtree(folder, ignore_errors=True)


def _wait(worker: Any, condition: Callable[[], bool], seconds: float = math.inf) -> None:
    """Wait until a condition no longer holds, or for so long; a worker that is told to stop meanwhile ends here.

    It would else go on to take the connections that wait, only to have nothing to answer them with. So does one whose
    arbiter is gone: nobody is left who could tell it that the worker for which it waits is gone, too.
    """
    deadline = time.monotonic() + seconds
    while condition() and time.monotonic() < deadline:
        if not worker.alive or not worker.is_parent_alive():
            sys.exit(0)
        worker.notify()
        time.sleep(_PAUSE_SECONDS)


def _tell_when_loaded(models: Models, board: Board, slot: int) -> None:
    models.wait()
    board[slot] = State.LOADED
