"""CPU and memory of the arbiter, its workers and its companions, read from /proc when somebody scrapes.

A worker's CPU time vanishes from /proc when the arbiter reaps it. So each slot has an account, a small file in the
metrics folder: which process holds the slot, and how much CPU time those took that held it before. The worker writes
its process id there when it starts (`claim_slot`); the arbiter adds the time of a worker that it has reaped
(`retire_slot`); both replace the file whole. A slot's counter is "earlier holders + the present one": it never falls,
however often workers are recycled, and ``sum(rate(…))`` over the slots is the CPU in use. One series ``reaped`` for
all the dead would keep only the sum of the raw values right: each recycling would move a worker's whole life there at
once, and a rate would show a burst.

What the kernel books for reaped children is exact, so nothing is estimated. Children that are no workers (a health
check that was handed to an arbiter that is process 1) count for the slot that is retired next.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

ARBITER: Final = "arbiter"

#: A worker's number, or a companion's name.
Slot = int | str

_log = logging.getLogger(__name__)

_MICROSECONDS: Final = 1_000_000
#: Of /proc/PID/smaps_rollup; the second is memory shared with others, files in a /tmp in memory among them.
_NO_FILES: Final = (b"Pss_Anon:", b"Pss_Shmem:")
# Between reaping a worker and booking it the arbiter only logs: that is waited out.
_ATTEMPTS: Final = 20
_PAUSE_SECONDS: Final = 0.002


class Account(NamedTuple):
    """Who holds a slot (process id, 0: nobody), and the CPU microseconds of those who held it before."""

    pid: int
    retired: int


class Process(NamedTuple):
    """What /proc says of one process; CPU in microseconds, in `all_cpu` with the children that it has reaped."""

    pid: int
    state: str
    parent: int
    own_cpu: int
    all_cpu: int
    rss_bytes: int


def open_accounts(directory: Path) -> None:
    """Begin anew, in the arbiter: forget all slots, book to the arbiter what it reaped before it had workers."""
    for path in directory.glob("slot_*.txt"):
        path.unlink(missing_ok=True)
    _write(directory, ARBITER, Account(0, _reaped()))


def opened_at(directory: Path) -> float:
    """Return when the arbiter opened the accounts, in Unix seconds; now when it can't be told."""
    try:
        return (directory / f"slot_{ARBITER}.txt").stat().st_mtime
    except OSError:
        return time.time()


def claim_slot(directory: Path, slot: Slot, pid: int) -> None:
    """Say that this process holds the slot; called by the worker or companion itself, first thing after the fork."""
    try:
        _write(directory, str(slot), Account(pid, _read(directory, str(slot)).retired))
    except OSError as error:
        # A full disk must not keep a worker from starting. Its time is booked when it is reaped.
        _log.error("slot %s: could not be claimed, its CPU time is reported late: %s", slot, error)


def retire_slot(directory: Path, slot: Slot) -> None:
    """Book the CPU time of a child that the arbiter has just reaped to its slot; called by the arbiter."""
    try:
        booked = sum(_read(directory, name).retired for name in _slots(directory))
        account = _read(directory, str(slot))
        _write(directory, str(slot), Account(0, account.retired + max(0, _reaped() - booked)))
    except OSError as error:
        # An exception here would end the arbiter. The next one that is reaped carries what is missing.
        _log.error("slot %s: its CPU time could not be booked yet: %s", slot, error)


def _reaped() -> int:
    """CPU microseconds of all children that this process has reaped, theirs included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(usage.ru_utime * _MICROSECONDS) + round(usage.ru_stime * _MICROSECONDS)


def _slots(directory: Path) -> list[str]:
    return sorted(path.stem.removeprefix("slot_") for path in directory.glob("slot_*.txt"))


def _read(directory: Path, slot: str) -> Account:
    try:
        pid, retired = (directory / f"slot_{slot}.txt").read_text("ascii").split()
    except FileNotFoundError:
        return Account(0, 0)
    return Account(int(pid), int(retired))


def _write(directory: Path, slot: str, account: Account) -> None:
    # A slot has one writer at a time (its worker lives, or has been reaped), so one temporary name will do.
    fresh = directory / f"slot_{slot}.new"
    fresh.write_text(f"{account.pid} {account.retired}\n", "ascii")
    fresh.replace(directory / f"slot_{slot}.txt")


class ProcessGroup(Collector):
    """Collector of ``muelle_worker_cpu_seconds_total{slot}`` and ``muelle_worker_memory_bytes{slot}``.

    Parameters
    ----------
    directory : Path
        The metrics folder, where the slots' accounts are.
    arbiter : int
        Process id of gunicorn's arbiter; a worker passes ``os.getppid()``, taken when it starts.
    proc : Path
        Where procfs is mounted; where there is none (macOS), or it can't be read, nothing is reported.
    """

    def __init__(self, directory: Path, arbiter: int, proc: Path = Path("/proc")) -> None:
        self._directory = directory
        self._arbiter = arbiter
        self._proc = proc

    def collect(self) -> Iterator[Metric]:
        """Yield the two families, or nothing when the arbiter can't be read."""
        arbiter = self._process(self._arbiter)
        if arbiter is None:
            return
        cpu = CounterMetricFamily(
            "muelle_worker_cpu_seconds", "CPU time of a worker slot over all workers that held it.", labels=["slot"]
        )
        memory = GaugeMetricFamily(
            "muelle_worker_memory_bytes",
            "Memory that belongs to no file, shared pages split (resident size where that can't be read).",
            labels=["slot"],
        )
        for slot in (ARBITER, *(slot for slot in _slots(self._directory) if slot != ARBITER)):
            try:
                account, process = (_read(self._directory, slot), arbiter) if slot == ARBITER else self._holder(slot)
            except OSError:
                # A missing sample does no harm; one that is too low would be taken for a counter that started again.
                continue
            running = 0 if process is None else process.own_cpu if slot == ARBITER else process.all_cpu
            cpu.add_metric([slot], (account.retired + running) / _MICROSECONDS)
            if process is not None and process.state != "Z":
                memory.add_metric([slot], self._memory_bytes(process))
        yield cpu
        yield memory

    def _holder(self, slot: str) -> tuple[Account, Process | None]:
        """Return a slot's account with its holder, None when nobody holds it.

        Raises
        ------
        OSError
            The account can't be read, or its holder is gone and is not being booked.
        """
        for _ in range(_ATTEMPTS):
            account = _read(self._directory, slot)
            if account.pid == 0:
                return account, None
            process = self._process(account.pid)
            # Another parent: the id has been given to a stranger since.
            if process is not None and process.parent == self._arbiter:
                return account, process
            time.sleep(_PAUSE_SECONDS)
        raise ProcessLookupError(f"slot {slot}: process {account.pid} is gone")

    def _process(self, pid: int) -> Process | None:
        """Read /proc/PID/stat (man 5 proc_pid_stat); None when the process is gone or may not be read."""
        try:
            stat = (self._proc / str(pid) / "stat").read_bytes()
        except OSError:
            return None
        # The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
        fields = stat.rpartition(b")")[2].split()
        if len(fields) < 22:
            return None
        tick = _MICROSECONDS // os.sysconf("SC_CLK_TCK")
        user, system, children_user, children_system = (int(field) * tick for field in fields[11:15])
        return Process(
            pid=pid,
            state=fields[0].decode("ascii"),
            parent=int(fields[1]),
            own_cpu=user + system,
            all_cpu=user + system + children_user + children_system,
            rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        )

    def _memory_bytes(self, process: Process) -> int:
        """Return the process's share of the memory that belongs to no file on a disk.

        A page that n processes share counts 1/n in each, so that the slots add up to what the cgroup has as anonymous
        and shared memory. Pages of files (programs, libraries) are left out: the kernel can drop them, and charges them
        to whoever on the machine came first, which in a cluster is hardly ever the pod that uses them.
        """
        try:
            rollup = (self._proc / str(process.pid) / "smaps_rollup").read_bytes()
        except OSError:
            return process.rss_bytes
        sizes = [int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith(_NO_FILES)]
        # Kernels before 5.3 don't tell them apart.
        return sum(sizes) if sizes else process.rss_bytes
