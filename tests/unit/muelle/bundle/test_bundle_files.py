"""Publishing a folder: all of it or nothing, once, and durable; with real processes that race."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from muelle.bundle.files import TEMPORARY_PREFIX, appearing, file_sha256, publish, sha256, write_file
from muelle.errors import BundleError, BundleExistsError

ROOT = Path(__file__).parents[4]
CONTENTS = {"manifest.json": b"{}\n", "model.joblib": bytes(range(256)) * 300, "empty": b""}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_digests(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert file_sha256(path) == sha256(path.read_bytes())


def test_a_digest_follows_no_link(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(OSError, match=r".") as caught:
        file_sha256(tmp_path / "link")
    assert caught.value.errno == errno.ELOOP


def test_a_folder_appears_with_its_files_and_nothing_else(tmp_path):
    target = tmp_path / "repository" / "iris" / "1"
    publish(target, CONTENTS)
    assert content(target) == CONTENTS
    assert [path.name for path in target.parent.iterdir()] == ["1"]


def test_nothing_is_overwritten(tmp_path):
    target = tmp_path / "1"
    publish(target, CONTENTS)
    with pytest.raises(BundleExistsError, match=r"1 exists; a version is never overwritten, choose another"):
        publish(target, {"manifest.json": b"other"})
    assert content(target) == CONTENTS
    assert os.listdir(tmp_path) == ["1"]


def make_file(target: Path) -> None:
    target.write_text("mine")


def make_empty_folder(target: Path) -> None:
    target.mkdir()


def make_link_to_nothing(target: Path) -> None:
    target.symlink_to("nowhere")


def make_link_to_a_folder(target: Path) -> None:
    (target.parent / ".elsewhere").mkdir()
    target.symlink_to(".elsewhere")


@pytest.mark.parametrize("make", [make_file, make_empty_folder, make_link_to_nothing, make_link_to_a_folder])
def test_whatever_stands_there_is_left_alone(tmp_path, make):
    target = tmp_path / "1"
    make(target)
    before = target.lstat()
    with pytest.raises(BundleExistsError):
        publish(target, CONTENTS)
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert not list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))


def test_a_writer_that_is_overtaken_after_its_check_leaves_the_winner_alone(tmp_path):
    target = tmp_path / "1"

    def overtaken() -> None:
        with appearing(target) as temporary:
            write_file(temporary / "manifest.json", [b"lo", b"ser"])
            target.mkdir()
            (target / "manifest.json").write_bytes(b"winner")

    with pytest.raises(BundleExistsError):
        overtaken()
    assert content(target) == {"manifest.json": b"winner"}
    assert os.listdir(tmp_path) == ["1"]


def test_an_error_while_files_are_written_leaves_nothing(tmp_path):
    def broken() -> None:
        with appearing(tmp_path / "1") as temporary:
            write_file(temporary / "manifest.json", (bytes(1 // (3 - i)) for i in range(5)))

    with pytest.raises(ZeroDivisionError):
        broken()
    assert os.listdir(tmp_path) == []


def test_a_parent_that_is_a_file_is_a_bundle_error(tmp_path):
    (tmp_path / "iris").write_text("no folder")
    with pytest.raises(BundleError, match="can't be written") as caught:
        publish(tmp_path / "iris" / "1", CONTENTS)
    assert not isinstance(caught.value, BundleExistsError)


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(descriptor: int) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(BundleError, match=r"1: can't be written: No space left on device"):
        publish(tmp_path / "1", CONTENTS)
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path / "1", CONTENTS)
    assert os.listdir(tmp_path) == []


def test_each_file_and_both_folders_are_synced_in_the_order_that_counts(tmp_path, monkeypatch):
    synced, fsync, rename = [], os.fsync, Path.rename

    def recording(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def renaming(self: Path, target: Path) -> Path:
        synced.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recording)
    monkeypatch.setattr(Path, "rename", renaming)
    publish(tmp_path / "1", CONTENTS)
    names = [Path(place).name for place in synced]
    assert names[:3] == list(CONTENTS)
    assert names[3].startswith(f"{TEMPORARY_PREFIX}1-")
    assert names[4:] == ["rename", tmp_path.name]


def test_old_leftovers_go_and_young_ones_stay(tmp_path):
    for name in (".tmp-1-old", ".tmp-1-young", ".other-old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.joblib").write_bytes(b"half")
        if name.endswith("old"):
            hours_ago = time.time() - 2 * 3600
            os.utime(tmp_path / name, (hours_ago, hours_ago))
    publish(tmp_path / "2", CONTENTS)
    assert sorted(os.listdir(tmp_path)) == [".other-old", ".tmp-1-young", "2"]


RACE = """
import sys, time
from pathlib import Path
from muelle.bundle.files import publish
from muelle.errors import BundleExistsError
target, mine, start = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
print("ready", flush=True)
while not start.exists():
    time.sleep(0.001)
won = []
for round in range(20):
    try:
        publish(target / str(round), {name: mine.encode() * 50_000 for name in ("a", "b", "c")})
        won.append(round)
    except BundleExistsError:
        pass
print(won)
"""


def test_of_racing_processes_exactly_one_wins_each_version(tmp_path):
    start = tmp_path / "start"
    command = [sys.executable, "-c", RACE, str(tmp_path / "models")]
    racers = [
        subprocess.Popen([*command, mine, str(start)], stdout=subprocess.PIPE, text=True, cwd=ROOT) for mine in "xyz"
    ]
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        start.touch()
        won = [[int(n) for n in racer.communicate(timeout=60)[0].strip(" []\n").split(",") if n] for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
            racer.stdout.close()
    assert sorted(version for versions in won for version in versions) == list(range(20))
    for mine, versions in zip("xyz", won, strict=True):
        for version in versions:
            expected = mine.encode() * 50_000
            assert content(tmp_path / "models" / str(version)) == {"a": expected, "b": expected, "c": expected}
    assert len(os.listdir(tmp_path / "models")) == 20


KILLED = """
import os, signal, sys
from pathlib import Path
from muelle.bundle import files
sync = files.sync_folder
files.sync_folder = lambda path: os.kill(os.getpid(), signal.SIGKILL)
files.publish(Path(sys.argv[1]), {"a": b"1", "b": b"2"})
"""


def test_a_writer_that_is_killed_leaves_only_what_readers_pass_over(tmp_path):
    target = tmp_path / "1"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
    assert [name[:7] for name in os.listdir(tmp_path)] == [".tmp-1-"]
    publish(target, CONTENTS)
    assert content(target) == CONTENTS
