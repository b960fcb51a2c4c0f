"""CPU and memory in /metrics, against the kernel's own books of the same processes: a cgroup with a server in it.

CPU time is compared as it is; memory with what belongs to no file on a disk: ``anon`` (in the first version ``rss``)
and ``shmem``.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from cgroups import Cgroup
from lifecycle import FOUR, LINEAR, holders, scrape, total, wait_loads
from load_client import Load
from support import Server, free_port

Report = Callable[[object], None]

CPU = "muelle_worker_cpu_seconds_total"
MEMORY = "muelle_worker_memory_bytes"
#: What is promised.
SHARE = 0.1


def test_cpu_and_memory_are_what_the_kernel_books(repository: Path, tmp_path: Path, report: Report) -> None:
    port, metrics = free_port(), tmp_path / "metrics"
    settings = {"MUELLE_METRICS_PORT": str(port), "MUELLE_METRICS_DIR": str(metrics), "MUELLE_MAX_REQUESTS": "400"}
    with (
        Cgroup(f"muelle-test-{os.getpid()}") as cgroup,
        Server(repository, tmp_path, settings, cgroup.prefix) as server,
    ):
        server.wait_ready()
        wait_loads(server, 6)
        report(compare(server, port, metrics, cgroup, 0.3))
        with Load(server.port, LINEAR, FOUR, new=2, kept=2) as load:
            # In the midst of it: workers are replaced, one is killed, and the companion, too.
            load.wait_ok(1000)
            # Whose slot it is changes at each replacement, so any worker's does.
            for is_one in (str.isdecimal, "metrics".__eq__):
                server.wait_for(lambda is_one=is_one: shot(metrics, is_one), "one to kill")
            load.wait_ok(3000)
            load.stop()
        server.wait_for(lambda: complete(set(holders(metrics))), "complete")
        report(compare(server, port, metrics, cgroup, SHARE))
        assert server.stop() == 0


def shot(metrics: Path, is_one: Callable[[str], bool]) -> bool:
    """Kill one of the processes whose slot is one; False when there is none, or it is being replaced."""
    pid = next((pid for slot, pid in holders(metrics).items() if is_one(slot)), None)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def complete(slots: set[str]) -> bool:
    """Whether two workers and the companion are there, whichever slots the workers have."""
    return "metrics" in slots and sum(map(str.isdecimal, slots)) >= 2


def compare(server: Server, port: int, metrics: Path, cgroup: Cgroup, cpu_share: float) -> str:
    """Fail unless both say the same, and return it; of little CPU time a tick, ten milliseconds, is a lot."""
    said = ""

    def agree() -> bool:
        nonlocal said
        before = cgroup.cpu_seconds()
        found = scrape(server, port)
        booked = (before + cgroup.cpu_seconds()) / 2
        cpu, memory = total(found, CPU), total(found, MEMORY)
        kept = cgroup.unfiled_bytes()
        said = (
            f"CPU {cpu:.2f} s, cgroup {booked:.2f} s; memory {memory / 2**20:.1f} MiB, cgroup {kept / 2**20:.1f} MiB, "
            f"{len(holders(metrics)) + 1} processes"
        )
        return abs(cpu - booked) < cpu_share * booked and abs(memory - kept) < SHARE * kept

    # A worker may be coming or going during one look.
    server.wait_for(agree, "true to the kernel's books", 20)
    return said
