"""The folder of memory-mapped files in which gunicorn's workers, by their slots, share what they count.

prometheus_client keeps one set of files a process id. Here it is one a **worker slot**: a recycled worker takes its
predecessor's slot and counts on in the same files, so no counter falls and the folder doesn't grow. Gauges of a slot
vanish when its worker ends.

What happens to gunicorn, in order (each hook is a call from gunicorn.conf.py)::

    arbiter  configuration   install_slot_values(directory, slot)     before any metric is made
    arbiter  on_starting     prepare_directory(directory)
    arbiter  pre_fork        worker.slot = lowest_free_slot(…)
    worker   post_fork       claim_slot(directory, slot, os.getpid())  (service.procfs)
    worker                   metrics = Metrics(…); metrics.start()
    worker   worker_exit     metrics.close()
    arbiter  child_exit      mark_slot_dead(directory, slot)
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import mmap_dict, multiprocess, values
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import procfs

_log = logging.getLogger(__name__)


class SlotValues(Collector):
    """The metrics of all slots, added up."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return the families by name."""
        # MultiProcessCollector.collect() itself fails on an empty file, which each is for an instant when it is made.
        files = [str(path) for path in sorted(self._directory.glob("*.db")) if _size(path) > 0]
        merged: Iterable[Metric] = multiprocess.MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return sorted(merged, key=lambda metric: metric.name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a gauge of a worker that has just ended
        return 0


def install_slot_values(directory: Path, slot: Callable[[], procfs.Slot | None]) -> None:
    """Make every metric that is made from now on live in files of the worker's slot.

    Parameters
    ----------
    directory : Path
        The folder of the files; the same for the arbiter, all workers and all companions.
    slot : callable
        Returns this process's slot; None in the arbiter.
    """

    def identity() -> str:
        number = slot()
        return procfs.ARBITER if number is None else _identity(number)

    # prometheus_client takes the folder from nowhere else.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    values.MmapedDict = _Allocated  # type: ignore[attr-defined]
    values.ValueClass = values.MultiProcessValue(identity)  # type: ignore[no-untyped-call]


class _Allocated(mmap_dict.MmapedDict):
    """A file of values that has all its bytes before they are mapped.

    prometheus_client's own has holes: who writes to one when the file system is full is killed by the kernel (SIGBUS).
    Here that is an OSError, and nothing has changed.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            with open(filename, "ab") as file:
                size = os.fstat(file.fileno()).st_size
                _allocate(file.fileno(), max(size, mmap_dict._INITIAL_MMAP_SIZE))
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        # The key with its length in front, then 1 to 8 bytes of padding, and two doubles.
        needed = self._used + 4 + len(key.encode()) + 8 + 16
        capacity = self._capacity
        while capacity < needed:
            capacity *= 2
        if capacity > self._capacity:
            _allocate(self._f.fileno(), capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]


def _allocate(file: int, size: int) -> None:
    """Let a file have so many bytes, none of them a hole; an OSError where there is no room for them."""
    if sys.platform != "linux":
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        # A file system, or a C library, that can't do it: it goes on as prometheus_client does. glibc would write
        # instead, but not to a file that is opened to append, as these are: that is EBADF.
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF):
            raise


def _identity(slot: procfs.Slot) -> str:
    return f"w{slot}" if isinstance(slot, int) else slot


def prepare_directory(directory: Path) -> None:
    """Make the folder when there is none, and remove what an earlier server left of ours; called in the arbiter."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.db"):
        path.unlink(missing_ok=True)
    procfs.open_accounts(directory)


def lowest_free_slot(used: Iterable[int | None]) -> int:
    """Return the smallest number from 0 that is not in use; None stands for a worker without a slot."""
    taken = set(used)
    slot = 0
    while slot in taken:
        slot += 1
    return slot


def mark_slot_dead(directory: Path, slot: procfs.Slot) -> None:
    """Drop the gauges of a process that the arbiter has just reaped, and book its CPU time; in the arbiter."""
    procfs.retire_slot(directory, slot)
    try:
        multiprocess.mark_process_dead(_identity(slot), str(directory))  # type: ignore[no-untyped-call]
    except OSError as error:
        # An exception here would end the arbiter.
        _log.error("slot %s: its gauges could not be removed: %s", slot, error)
