"""A full disk, or a kill in the middle of bundling: the repository is as it was, and every version in it is whole."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from muelle.bundle import open_bundle, save
from muelle.bundle.files import TEMPORARY_PREFIX, publish
from muelle.errors import BundleError
from muelle.inference import Predictor
from muelle.store import Repository

ROWS = np.arange(40.0).reshape(20, 2)
#: Two works, each endless and each telling after every write what it has promised.
BUNDLING = """
import numpy as np
from sklearn.linear_model import LinearRegression
from muelle.bundle import save

rows = np.arange(40.0).reshape(20, 2)
estimator = LinearRegression().fit(rows, rows.sum(axis=1))

def work(folder):
    return save(estimator, rows, name="sums", repository=folder, onnx=False).name
"""
#: The same of folders alone, which is where the time between two states of the disk is: large files, nothing else.
PUBLISHING = """
import itertools
from pathlib import Path
from muelle.bundle.files import publish

numbers = itertools.count(1)

def work(folder):
    number = next(numbers)
    publish(Path(folder) / str(number), {f"file-{i}": bytes([number % 256]) * 300_000 for i in range(4)})
    return str(number)
"""
#: For each line "SECONDS FOLDER": let a child work, kill it that long after its first promise, print all promises.
KILLER = """
import os, signal, sys, time

for line in sys.stdin:
    seconds, _, folder = line.rstrip("\\n").partition(" ")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        while True:
            os.write(write, work(folder).encode() + b" ")
    os.close(write)
    promised = os.read(read, 65536)
    time.sleep(float(seconds))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 65536):
        promised += more
    os.close(read)
    print(promised.decode(), flush=True)
"""
WRITER = "import sys\n" + BUNDLING + "while True:\n    print(work(sys.argv[1]), flush=True)\n"


class Killer:
    """A process that starts writers and kills them, with no chance to clean up."""

    def __init__(self, work: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", work + KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def kill_after(self, seconds: float, folder: Path) -> set[str]:
        """Return what the writer promised to have written."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seconds} {folder}\n")
        self._process.stdin.flush()
        return set(self._process.stdout.readline().split())


def small_model() -> LinearRegression:
    return LinearRegression().fit(ROWS, ROWS.sum(axis=1))


def check_repository(path: Path) -> int:
    """Open every version that can be seen; return how many there are."""
    count = 0
    for name, versions in Repository(path).bundles().items():
        for version, folder in versions.items():
            bundle = open_bundle(folder)
            assert (bundle.manifest.name, bundle.manifest.version) == (name, version)
            assert bundle.golden.inputs
            assert bundle.profile.rows == len(ROWS)
            count += 1
    return count


def leftovers(path: Path) -> list[Path]:
    return [item for item in path.rglob("*") if item.name.startswith(TEMPORARY_PREFIX)]


def test_a_kill_in_the_middle_of_bundling_leaves_whole_versions_only(tmp_path: Path) -> None:
    """A dozen kills at random moments; after each the repository is right, and the next writer goes on."""
    chance = random.Random(0)
    there: set[str] = set()
    with Killer(BUNDLING) as killer:
        for _ in range(12):
            promised = killer.kill_after(chance.uniform(0, 0.06), tmp_path)
            assert promised
            count = check_repository(tmp_path)
            # One more than was promised may be there, whose promise was not yet said.
            there, before = set(Repository(tmp_path).bundles()["sums"]), there
            assert there >= before | promised
            assert len(there) == count
    listed = subprocess.run(
        [sys.executable, "-m", "muelle.cli", "list", "--repository", str(tmp_path), "--output", "json"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert {item["version"] for item in json.loads(listed.stdout)} == there
    assert Predictor.load(tmp_path / "sums" / "1").predict([[1, 2]]) == pytest.approx([3.0])
    assert save(small_model(), ROWS, name="sums", repository=tmp_path, onnx=False).name == str(count + 1)


def test_a_kill_while_files_are_written_shows_all_of_a_folder_or_nothing(tmp_path: Path) -> None:
    """Most kills come while files are being written; what is half done has a name that no reader looks at."""
    chance = random.Random(1)
    interrupted = 0
    with Killer(PUBLISHING) as killer:
        for turn in range(20):
            folder = tmp_path / str(turn)
            promised = killer.kill_after(chance.uniform(0, 0.03), folder)
            visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
            assert {path.name for path in visible} >= promised
            for path in visible:
                assert sorted(file.name for file in path.iterdir()) == [f"file-{i}" for i in range(4)]
                for file in path.iterdir():
                    assert file.read_bytes() == bytes([int(path.name) % 256]) * 300_000
            interrupted += bool(leftovers(folder))
            assert set(Repository(tmp_path).bundles()[str(turn)]) == {path.name for path in visible}
            shutil.rmtree(folder)
    assert interrupted, "no kill met a write: the test shows nothing"


def test_what_a_killed_writer_left_is_swept_up_later(tmp_path: Path) -> None:
    save(small_model(), ROWS, name="sums", version="1", repository=tmp_path, onnx=False)
    old, young = (tmp_path / "sums" / f"{TEMPORARY_PREFIX}{name}" for name in ("2-old", "3-young"))
    for folder in (old, young):
        folder.mkdir()
        (folder / "model.joblib").write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert check_repository(tmp_path) == 1
    save(small_model(), ROWS, name="sums", version="2", repository=tmp_path, onnx=False)
    assert check_repository(tmp_path) == 2
    assert leftovers(tmp_path) == [young]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k,mode=700", "tmpfs", str(disk)],
        capture_output=True,
        timeout=20,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not permitted here; the file size limit's test covers the same code")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], timeout=20, check=True)


def test_a_full_disk_leaves_the_repository_as_it_was(small_disk: Path) -> None:
    def fill() -> None:
        for _ in range(200):
            save(small_model(), ROWS, name="sums", repository=small_disk, onnx=False)

    with pytest.raises(BundleError, match=r"can't be written: No space left on device"):
        fill()
    count = len(Repository(small_disk).bundles()["sums"])
    assert count > 1
    assert check_repository(small_disk) == count
    assert leftovers(small_disk) == []
    # With room again it goes on where it was.
    shutil.rmtree(small_disk / "sums" / "1")
    assert save(small_model(), ROWS, name="sums", repository=small_disk, onnx=False).name == str(count + 1)
    assert check_repository(small_disk) == count


@pytest.mark.parametrize("room", range(0, 40_000, 4096))
def test_a_disk_that_fills_up_at_any_file_leaves_nothing(small_disk: Path, room: int) -> None:
    """The disk has room for some of the files, down to part of the last."""
    save(small_model(), ROWS, name="sums", version="1", repository=small_disk, onnx=False)
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(free - room))
    contents = {f"file-{i}": bytes(20_000) for i in range(3)}
    with pytest.raises(BundleError, match="No space left on device"):
        publish(small_disk / "sums" / "2", contents)
    assert list(Repository(small_disk).bundles()["sums"]) == ["1"]
    assert check_repository(small_disk) == 1
    assert leftovers(small_disk) == []
    ballast.unlink()
    publish(small_disk / "sums" / "2", contents)


def test_a_file_size_limit_leaves_the_repository_as_it_was(tmp_path: Path) -> None:
    """Another way in which a write fails half way, one that needs no rights."""
    save(small_model(), ROWS, name="sums", version="1", repository=tmp_path, onnx=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(BundleError, match=r"sums/2: can't be written: File too large"):
            save(small_model(), ROWS, name="sums", repository=tmp_path, onnx=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert check_repository(tmp_path) == 1
    assert leftovers(tmp_path) == []
    assert save(small_model(), ROWS, name="sums", repository=tmp_path, onnx=False).name == "2"


def test_writers_beside_each_other_take_different_versions(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    promised: list[str] = []
    try:
        for writer in writers:
            assert writer.stdout is not None
            promised += [writer.stdout.readline().strip() for _ in range(5)]
    finally:
        for writer in writers:
            writer.kill()
            promised += writer.communicate(timeout=20)[0].split()
    assert len(set(promised)) == len(promised)
    assert check_repository(tmp_path) >= len(promised)
