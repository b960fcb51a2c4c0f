"""The spool's segments: whole lines, one writer, no more than the bound, and the shipper takes what is complete."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from service import spool
from service.spool import Spool, SpoolFullError, held_bytes, segment_name, taken, waiting

MANY = 1024 * 1024


def make(folder: Path, most: int = MANY, seconds: float = 60.0) -> Spool:
    return Spool(folder / "spool", most, seconds, "w0")


def lines(folder: Path) -> list[bytes]:
    """Return the lines of all complete segments."""
    found = []
    for path in waiting(folder / "spool"):
        with taken(path) as segment:
            if segment is not None:
                found += list(segment)
    return found


def test_a_segment_is_taken_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.append(b"one")
    assert lines(tmp_path) == []
    spool.complete()
    spool.complete()
    assert lines(tmp_path) == [b"one\n"]
    assert spool.due_seconds() is None


def test_each_segment_has_each_heading_once(tmp_path: Path) -> None:
    spool = make(tmp_path)
    for text in (b"1", b"2"):
        spool.append(text, b"a")
        spool.append(text, b"b")
    spool.complete()
    spool.append(b"3", b"a")
    spool.complete()
    assert lines(tmp_path) == [b"a\n", b"1\n", b"b\n", b"1\n", b"2\n", b"2\n", b"a\n", b"3\n"]


def test_an_old_segment_is_due(tmp_path: Path) -> None:
    spool = make(tmp_path, seconds=0.01)
    assert spool.due_seconds() is None
    spool.append(b"one")
    time.sleep(0.02)
    assert spool.due_seconds() == 0


def test_a_large_segment_gives_way_to_the_next(tmp_path: Path) -> None:
    spool = make(tmp_path, most=80_000)
    for number in range(6):
        spool.append(str(number).encode() * 4000)
    assert len(waiting(tmp_path / "spool")) == 3
    assert max(path.stat().st_size for path in (tmp_path / "spool").iterdir()) <= 10_000
    spool.complete()
    assert len(lines(tmp_path)) == 6


def test_at_the_bound_nothing_more_is_taken_until_something_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = make(tmp_path, most=10_000)
    monkeypatch.setattr(spool, "_LOOK_SECONDS", 0.0)
    for _ in range(19):
        full.append(b"x" * 500)
    with pytest.raises(SpoolFullError, match="10000 are allowed"):
        full.append(b"x" * 500)
    assert 9_000 < held_bytes(tmp_path / "spool") <= 10_000
    # A second worker counts the first one's segments.
    with pytest.raises(SpoolFullError):
        make(tmp_path, most=10_000).append(b"x" * 2000)
    for path in waiting(tmp_path / "spool"):
        with taken(path) as segment:
            if segment is not None:
                path.unlink()
    full.append(b"again")


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing_of_itself(tmp_path: Path) -> None:
    def write(limit: int) -> None:
        spool = make(tmp_path)
        spool.append(b"whole")
        # What a full disk does: the first part of a write goes through.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            spool.append(b"x" * 5000)
        except SpoolFullError:
            spool.append(b"next")
            spool.complete()
            os._exit(0)
        os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=write, args=(2000,))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert lines(tmp_path) == [b"whole\n", b"next\n"]


def test_the_segment_of_a_killed_writer_is_taken_with_its_torn_line(tmp_path: Path) -> None:
    def write() -> None:
        spool = make(tmp_path)
        spool.append(b"whole")
        segment = spool._segment
        assert segment is not None
        os.write(segment._file, b'{"m":0,"n":12,"i":["a')
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert lines(tmp_path) == [b"whole\n", b'{"m":0,"n":12,"i":["a']


def test_of_two_shippers_one_gets_a_segment(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.append(b"one")
    spool.complete()
    (path,) = waiting(tmp_path / "spool")
    with taken(path) as first, taken(path) as second:
        assert first is not None
        assert second is None
        path.unlink()
    with taken(path) as gone:
        assert gone is None


def test_a_segment_that_is_completed_just_now_is_taken_by_its_new_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shipped by its old name it would not be removed, and be shipped again."""
    writer = make(tmp_path)
    writer.append(b"one")
    (path,) = waiting(tmp_path / "spool")
    lock = spool.fcntl.flock

    def complete_first(*arguments: Any) -> None:
        monkeypatch.setattr(spool.fcntl, "flock", lock)
        writer.complete()
        lock(*arguments)

    monkeypatch.setattr(spool.fcntl, "flock", complete_first)
    with taken(path) as segment:
        assert segment is None
    assert lines(tmp_path) == [b"one\n"]


def test_an_open_segment_without_a_byte_is_left_alone(tmp_path: Path) -> None:
    """Its writer may have made it just now, and not locked it yet."""
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "a.open").touch()
    (folder / "b.open").touch()
    os.utime(folder / "b.open", (0, 0))
    assert [segment_name(path) for path in waiting(folder)] == ["b"]


def test_segments_are_for_nobody_else_to_read(tmp_path: Path) -> None:
    make(tmp_path).append(b"one")
    (path,) = (tmp_path / "spool").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_system_without_locks_costs_neither_descriptors_nor_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    writer = make(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="No locks"):
            writer.append(b"one")
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path / "spool") == []


def test_what_a_file_system_says_only_at_the_end_does_not_end_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make(tmp_path)
    writer.append(b"one")
    close = os.close

    def refuse(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", refuse)
    writer.complete()
    monkeypatch.undo()
    writer.append(b"two")
    writer.complete()
    assert lines(tmp_path) == [b"one\n", b"two\n"]


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.append(b"one")
    for path in (tmp_path / "spool").iterdir():
        path.unlink()
    (tmp_path / "spool").rmdir()
    spool.complete()
    spool.append(b"two")
    spool.complete()
    assert lines(tmp_path) == [b"two\n"]
    assert held_bytes(tmp_path / "nowhere") == 0
    assert waiting(tmp_path / "nowhere") == []
