"""``muelle fetch`` that is ended in the middle, or runs out of room: what can be seen in the folder is always whole."""

from __future__ import annotations

import contextlib
import filecmp
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_server import Handler, WebServer, wait_until

from muelle.bundle import open_bundle
from muelle.bundle.files import TEMPORARY_PREFIX
from muelle.errors import BundleError
from muelle.store import fetch as store_fetch
from muelle.store.remote import Access
from muelle.store.source import Source

BUNDLE = Path(__file__).parents[1] / "fixtures" / "bundles" / "v1" / "linear" / "1"
ACCESS = Access(insecure=True, retry_seconds=0)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    shutil.copytree(BUNDLE, tmp_path / "served" / "linear" / "1")
    with WebServer(tmp_path / "served") as server:
        yield server


def stand_still_at_the_model(handler: Handler) -> bool:
    return handler.path.endswith("joblib") and handler.stand_still(b"x" * 300) is None


def start(web: WebServer, models: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "muelle.cli", "fetch", "--to", str(models), "--insecure", f"{web.url}/linear/1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def hidden(models: Path) -> list[Path]:
    return [path for path in models.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop_it_clears_away_and_does_not_wait_for_the_server(web, tmp_path, number, code):
    web.behaviour = stand_still_at_the_model
    models = tmp_path / "models"
    with start(web, models) as process:
        wait_until(lambda: bool(hidden(models)))
        wait_until(lambda: any(path.endswith("joblib") for path, _ in web.seen))
        process.send_signal(number)
        # Waiting for the server would take 30 seconds, and 30 more of trying again.
        _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert errors.splitlines()[-1] == "stopped; nothing half done was left behind"
    assert list((models / "linear").iterdir()) == []


def test_killed_at_any_moment_it_shows_all_of_a_bundle_or_nothing(web, tmp_path):
    def slowly(handler: Handler) -> bool:
        time.sleep(0.05)
        return False

    chance = random.Random(0)
    models = tmp_path / "models"
    web.behaviour = slowly
    for _ in range(12):
        web.seen.clear()
        with start(web, models) as process:
            wait_until(lambda: bool(web.seen))
            time.sleep(chance.uniform(0, 0.15))
            process.kill()
            process.communicate(timeout=20)
        folder = models / "linear" / "1"
        if folder.exists():
            assert open_bundle(folder).manifest.name == "linear"
            shutil.rmtree(folder)
    assert hidden(models), "no kill met a fetch that was under way: the test shows nothing"
    # What killed ones left is in nobody's way.
    fetched = store_fetch.fetch(Source(f"{web.url}/linear/1"), models, ACCESS, max_bytes=10**9)
    assert filecmp.dircmp(BUNDLE, fetched.path).diff_files == []


def test_two_at_once_are_both_content(web, tmp_path):
    models = tmp_path / "models"
    with start(web, models) as one, start(web, models) as other:
        results = [(process.communicate(timeout=60), process.returncode) for process in (one, other)]
    assert [code for _, code in results] == [0, 0], results
    assert open_bundle(models / "linear" / "1").manifest.name == "linear"
    assert hidden(models) == []


def test_a_damaged_bundle_that_is_there_is_not_taken_for_whole(web, tmp_path):
    models = tmp_path / "models"
    source = Source(f"{web.url}/linear/1", open_bundle(BUNDLE).digest)
    path = store_fetch.fetch(source, models, ACCESS, max_bytes=10**9).path
    (path / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"linear/1 is there, but damaged: model.onnx: .*; remove it and fetch again"):
        store_fetch.fetch(source, models, ACCESS, max_bytes=10**9)


def test_another_bundle_of_that_version_is_left_alone(web, tmp_path):
    models = tmp_path / "models"
    source = Source(f"{web.url}/linear/1")
    path = store_fetch.fetch(source, models, ACCESS, max_bytes=10**9).path
    before = open_bundle(path).digest
    served = tmp_path / "served" / "linear" / "1" / "manifest.json"
    served.write_bytes(served.read_bytes().replace(b'"created": "2', b'"created": "1'))
    with pytest.raises(BundleError, match=r"linear/1 is there and is sha256:.*; choose another version"):
        store_fetch.fetch(source, models, ACCESS, max_bytes=10**9)
    assert open_bundle(path).digest == before


@contextlib.contextmanager
def small_files(limit_bytes: int) -> Iterator[None]:
    """Let every write beyond a size fail: like a full disk, and it needs no rights."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_leaves_nothing(web, tmp_path):
    models = tmp_path / "models"
    with small_files(1000), pytest.raises(BundleError, match=r"linear/1: can't be written: File too large"):
        store_fetch.fetch(Source(f"{web.url}/linear/1"), models, ACCESS, max_bytes=10**9)
    assert list((models / "linear").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here; the file size limit's test covers the same code")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], timeout=20, check=True)


def test_a_full_disk_is_said_and_leaves_nothing(web, small_disk):
    with start(web, small_disk) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == f"Error: {small_disk}/linear/1: can't be written: No space left on device"
    assert list((small_disk / "linear").iterdir()) == []


def test_a_folder_that_may_not_be_written(web, tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(BundleError, match=r"models/linear/1: can't be written: "):
        store_fetch.fetch(Source(f"{web.url}/linear/1"), tmp_path / "models", ACCESS, max_bytes=10**9)
