"""CPU and memory of real process groups: an arbiter that forks, loses and reaps workers on our orders."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.procfs import ProcessGroup, claim_slot, open_accounts, opened_at, retire_slot

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs procfs")

ARBITER = """
import os, signal, sys, time
from pathlib import Path
from service.procfs import claim_slot, open_accounts, retire_slot
directory = Path(sys.argv[1])
pids = {}

def burn(seconds):
    while time.process_time() < seconds:
        pass

def fork(slot, seconds=0.0, mebibytes=0, claim=True, stay=True):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        if claim:
            claim_slot(directory, slot, os.getpid())
        burn(seconds)
        held = b"x" * (mebibytes << 20)
        os.write(writer, b"1")
        if stay:
            signal.pause()
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    pids[slot] = pid
    return pid

def kill(slot):
    os.kill(pids[slot], signal.SIGKILL)
    os.waitid(os.P_PID, pids[slot], os.WEXITED | os.WNOWAIT)

def reap(slot):
    os.waitpid(pids.pop(slot), 0)

def recycle(slot, seconds):
    fork(slot, seconds, stay=False)
    reap(slot)
    retire_slot(directory, slot)

open_accounts(directory)
for order in sys.stdin:
    print(eval(order), flush=True)
for pid in pids.values():
    os.kill(pid, signal.SIGKILL)
"""


class Arbiter:
    """A process that forks workers; `do` evaluates an expression there."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ARBITER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.group = ProcessGroup(directory, self.process.pid)

    def order(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, order: str) -> str:
        self.order(order)
        return self.answer()


@pytest.fixture
def arbiter(tmp_path: Path) -> Iterator[Arbiter]:
    started = Arbiter(tmp_path)
    assert started.do("1") == "1"
    yield started
    started.process.communicate()
    assert started.process.returncode == 0


def read(group: ProcessGroup) -> tuple[dict[str, float], dict[str, float]]:
    """Return CPU seconds and memory bytes by slot."""
    found = {
        family.name: {sample.labels["slot"]: sample.value for sample in family.samples} for family in group.collect()
    }
    return found.get("muelle_worker_cpu_seconds", {}), found.get("muelle_worker_memory_bytes", {})


def test_the_families_are_named_and_typed(arbiter: Arbiter) -> None:
    cpu, memory = arbiter.group.collect()
    assert (cpu.name, cpu.type, {sample.name for sample in cpu.samples}) == (
        "muelle_worker_cpu_seconds",
        "counter",
        {"muelle_worker_cpu_seconds_total"},
    )
    assert (memory.name, memory.type) == ("muelle_worker_memory_bytes", "gauge")


def test_a_slots_cpu_survives_its_worker_at_every_moment(arbiter: Arbiter) -> None:
    arbiter.do("fork(0, seconds=0.3)")
    arbiter.do("fork(1, seconds=0.1)")
    alive, memory = read(arbiter.group)
    assert alive["0"] >= 0.3 - 0.02  # two clocks of 10 ms, each rounded down
    assert 0.08 <= alive["1"] < alive["0"]
    assert set(memory) == {"arbiter", "0", "1"}

    arbiter.do("kill(0)")
    zombie, memory = read(arbiter.group)
    assert zombie["0"] >= alive["0"]
    assert set(memory) == {"arbiter", "1"}

    arbiter.do("reap(0)")
    unbooked, _ = read(arbiter.group)
    assert set(unbooked) == {"arbiter", "1"}  # no number rather than one that falls

    arbiter.do("retire_slot(directory, 0)")
    booked, memory = read(arbiter.group)
    assert booked["0"] >= max(zombie["0"], 0.3)
    assert booked["1"] == pytest.approx(alive["1"], abs=0.05)
    assert "0" not in memory

    arbiter.do("fork(0, seconds=0.1)")
    again, memory = read(arbiter.group)
    assert again["0"] >= booked["0"] + 0.08
    assert "0" in memory


def test_the_sum_is_the_cpu_of_the_whole_group(arbiter: Arbiter) -> None:
    arbiter.do("burn(time.process_time() + 0.1)")
    for _ in range(3):
        arbiter.do("recycle(0, 0.05)")
    arbiter.do("fork(0, seconds=0.05)")
    total = sum(read(arbiter.group)[0].values())
    tick = os.sysconf("SC_CLK_TCK")

    def stat(pid: str, first: int, last: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[first:last])) / tick

    expected = stat(str(arbiter.process.pid), 11, 15) + stat(arbiter.do("pids[0]"), 11, 13)
    assert total == pytest.approx(expected, abs=0.05)
    assert total >= 0.3 - 0.05


def test_no_counter_falls_while_workers_are_recycled(arbiter: Arbiter) -> None:
    arbiter.do("recycle(0, 0.01)")
    last: dict[str, float] = {}
    scrapes = 0
    for _ in range(20):
        arbiter.order("recycle(0, 0.02)")
        # Scrapes meet every moment of a life: not yet claimed, running, dead, reaped, booked.
        for _ in range(25):
            cpu, _memory = read(arbiter.group)
            for slot, seconds in cpu.items():
                assert seconds >= last.get(slot, 0.0)
            last |= cpu
            scrapes += 1
        arbiter.answer()
    assert read(arbiter.group)[0]["0"] >= 20 * 0.02
    assert scrapes == 500


def test_a_worker_that_was_never_booked_is_booked_with_the_next(arbiter: Arbiter) -> None:
    arbiter.do("fork(0, seconds=0.2)")
    arbiter.do("kill(0)")
    arbiter.do("reap(0)")
    arbiter.do("recycle(0, 0.01)")
    assert read(arbiter.group)[0]["0"] >= 0.2


def test_memory_is_the_proportional_share(arbiter: Arbiter) -> None:
    before = read(arbiter.group)[1]["arbiter"]
    small = int(arbiter.do("fork(0)"))
    arbiter.do("fork(1, mebibytes=40)")
    memory = read(arbiter.group)[1]
    assert memory["1"] - memory["0"] >= 39 << 20
    # What the arbiter and two workers share is counted once in all three.
    resident = int(Path(f"/proc/{small}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert memory["0"] < resident
    assert memory["arbiter"] < before


def test_memory_is_that_of_no_file(arbiter: Arbiter, tmp_path: Path) -> None:
    pid = str(arbiter.process.pid)
    (tmp_path / "proc" / pid).mkdir(parents=True)
    shutil.copyfile(f"/proc/{pid}/stat", tmp_path / "proc" / pid / "stat")
    lines = ["Rss: 900 kB", "Pss: 600 kB", "Pss_Anon: 300 kB", "Pss_File: 200 kB", "Pss_Shmem: 100 kB"]
    rollup = tmp_path / "proc" / pid / "smaps_rollup"
    rollup.write_text("\n".join(lines))
    assert read(ProcessGroup(tmp_path, arbiter.process.pid, tmp_path / "proc"))[1]["arbiter"] == 400 * 1024
    # An older kernel.
    rollup.write_text("\n".join(lines[:2]))
    assert read(ProcessGroup(tmp_path, arbiter.process.pid, tmp_path / "proc"))[1]["arbiter"] > 1 << 20


def test_memory_falls_back_to_the_resident_size(arbiter: Arbiter, tmp_path: Path) -> None:
    pid = str(arbiter.process.pid)
    (tmp_path / "proc" / pid).mkdir(parents=True)
    shutil.copyfile(f"/proc/{pid}/stat", tmp_path / "proc" / pid / "stat")
    memory = read(ProcessGroup(tmp_path, arbiter.process.pid, tmp_path / "proc"))[1]
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert memory["arbiter"] == pytest.approx(resident, rel=0.2)


def test_a_hostile_process_name_is_read_past(arbiter: Arbiter) -> None:
    before = read(arbiter.group)[0]["arbiter"]
    arbiter.do("open('/proc/self/comm', 'w').write('a) Z 1 (b')")
    assert before <= read(arbiter.group)[0]["arbiter"] < before + 5


def test_a_process_id_that_now_is_a_strangers_is_not_counted(arbiter: Arbiter, tmp_path: Path) -> None:
    claim_slot(tmp_path, 0, os.getpid())
    cpu, memory = read(arbiter.group)
    assert set(cpu) == set(memory) == {"arbiter"}


def test_a_worker_that_has_not_claimed_its_slot_yet_is_left_out(arbiter: Arbiter) -> None:
    arbiter.do("fork(0, claim=False)")
    assert set(read(arbiter.group)[0]) == {"arbiter"}


def test_no_arbiter_or_no_procfs_gives_nothing(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert list(ProcessGroup(tmp_path, gone.pid).collect()) == []
    assert list(ProcessGroup(tmp_path, os.getpid(), tmp_path / "no-proc").collect()) == []


def test_accounts_begin_anew(tmp_path: Path) -> None:
    claim_slot(tmp_path, 3, 1)
    open_accounts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["slot_arbiter.txt"]


def test_when_the_accounts_were_opened_stays_as_workers_come_and_go(tmp_path: Path) -> None:
    open_accounts(tmp_path)
    opened = opened_at(tmp_path)
    claim_slot(tmp_path, 0, 1)
    retire_slot(tmp_path, 0)
    assert opened_at(tmp_path) == opened
    # Nobody opened these: from now on.
    assert opened_at(tmp_path / "gone") >= opened


def test_a_folder_that_is_gone_stops_neither_worker_nor_arbiter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        claim_slot(tmp_path / "gone", 0, 1)
        retire_slot(tmp_path / "gone", 0)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["slot 0", "slot 0"]


def test_a_companion_has_a_slot_of_its_own_by_its_name(arbiter: Arbiter) -> None:
    arbiter.do("fork('metrics', 0.2, 8)")
    arbiter.do("recycle(0, 0.2)")
    cpu, memory = read(arbiter.group)
    assert set(cpu) == {"arbiter", "0", "metrics"}
    assert cpu["metrics"] >= 0.15
    assert memory["metrics"] > 8 << 20
    for order in ("kill('metrics')", "reap('metrics')", "retire_slot(directory, 'metrics')"):
        arbiter.do(order)
    cpu, memory = read(arbiter.group)
    assert cpu["metrics"] >= 0.2
    # Not to the slot that was retired before.
    assert cpu["0"] < 0.3
    assert "metrics" not in memory
