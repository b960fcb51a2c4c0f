"""The metrics folder of a real server: when it is full, and when a server that was killed has left one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle import FOUR, LINEAR, holders, kill, scrape, total, wait_gone, wait_loads, wait_workers
from support import Server, free_port


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for the workers' metrics, and for little else."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here; the unit tests cover the same code")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], timeout=20, check=True)


def fill(path: Path) -> None:
    """Write until there is no room for another page."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def messages(server: Server) -> list[str]:
    return [str(line["message"]) for line in server.log()]


def test_a_memory_that_does_not_fit_leaves_the_workers_their_room(
    repository: Path, tmp_path: Path, small_disk: Path
) -> None:
    settings = {"TMPDIR": str(small_disk), "MUELLE_FEEDBACK_ROWS": "1000000", "MUELLE_WORKERS": "3"}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        server.wait_for(lambda: sum("remembers no answers" in said for said in messages(server)) == 3, "settled")
        assert server.post(LINEAR, FOUR).status == 200
        assert total(scrape(server), "muelle_worker_failures_total") == 0
        assert server.stop() == 0
    assert not [said for said in messages(server) if "SIGBUS" in said]


def test_a_folder_that_is_full_kills_nobody(repository: Path, tmp_path: Path, small_disk: Path) -> None:
    settings = {"TMPDIR": str(small_disk), "MUELLE_FEEDBACK_ROWS": "1000", "MUELLE_WORKERS": "2"}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        old = wait_workers(server, 2)
        wait_loads(server, 6)
        fill(small_disk / "ballast")
        assert os.statvfs(small_disk).f_bavail == 0
        for _ in range(20):
            assert server.post(LINEAR, FOUR).status == 200
            assert server.post(LINEAR, {"features": ["x"]}).status == 400
            assert server.request("POST", LINEAR, "x", {"Content-Type": "text/plain"}).status == 415
        # A reload needs files for two more workers. There is no room, so the old ones go on.
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for(lambda: any("The others go on" in said for said in messages(server)), "told")
        assert server.post(LINEAR, FOUR).status == 200
        assert set(old) <= set(server.workers())
        (small_disk / "ballast").unlink()
        wait_workers(server, 2, without=set(old))
        server.wait_ready()
        assert server.post(LINEAR, FOUR).status == 200
    assert not [said for said in messages(server) if "SIGBUS" in said]


@pytest.mark.parametrize("kib", [200, 500])
def test_a_folder_with_room_for_a_part_of_the_metrics_keeps_answering(
    kib: int, repository: Path, tmp_path: Path, small_disk: Path
) -> None:
    settings = {"TMPDIR": str(small_disk), "MUELLE_FEEDBACK_ROWS": "1000", "MUELLE_WORKERS": "2"}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        old = wait_workers(server, 2)
        wait_loads(server, 6)
        ballast = small_disk / "ballast"
        fill(ballast)
        os.truncate(ballast, ballast.stat().st_size - kib * 1024)
        os.kill(server.pid, signal.SIGHUP)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and set(old) & set(server.workers()):
            assert server.post(LINEAR, FOUR).status == 200
            time.sleep(0.02)
        for _ in range(20):
            assert server.post(LINEAR, FOUR).status == 200
    said = messages(server)
    assert any("[Errno 28]" in line or "The others go on" in line for line in said)
    assert not [line for line in said if "SIGBUS" in line]


def test_what_killed_servers_left_is_removed_at_the_next_start(repository: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {"TMPDIR": str(temporary), "MUELLE_SERVE": "linear", "MUELLE_METRICS_PORT": str(free_port())}
    for _ in range(2):
        with Server(repository, tmp_path, settings) as server:
            server.wait_ready()
            (folder,) = temporary.iterdir()
            others = server.workers()
            assert set(holders(folder)) == {"0", "1", "metrics"}
            # As the kernel does to a container that needs too much memory: all at once.
            for pid in (server.pid, *others):
                os.kill(pid, signal.SIGKILL)
            server.stop()
        wait_gone(others)
    assert list(temporary.iterdir()) == [folder]
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        (fresh,) = temporary.iterdir()
        assert fresh != folder


def test_servers_with_one_temporary_folder_leave_each_other_alone(repository: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {"TMPDIR": str(temporary), "MUELLE_SERVE": "linear"}
    with Server(repository, tmp_path, settings) as first:
        first.wait_ready()
        (folder,) = temporary.iterdir()
        with Server(repository, tmp_path, settings) as second:
            second.wait_ready()
            assert len(list(temporary.iterdir())) == 2
            # Each goes on with its own.
            for server in (first, second):
                old = server.workers()
                os.kill(server.pid, signal.SIGHUP)
                wait_workers(server, 2, without=set(old))
                kill(server.workers()[0])
                wait_workers(server, 2)
            assert folder in temporary.iterdir()
            assert len(list(temporary.iterdir())) == 2
        assert list(temporary.iterdir()) == [folder]
        # The last half second's counts are there, too.
        assert first.post(LINEAR, FOUR).status == 200
        first.wait_for(lambda: total(scrape(first), "muelle_requests_total", model="linear") == 1, "to have counted")
    assert list(temporary.iterdir()) == []
