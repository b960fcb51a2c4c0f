"""From the spool to its place: each row once, whatever dies in between, and an outage is waited for."""

from __future__ import annotations

import importlib.util
import io
import logging
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from prometheus_client import CollectorRegistry
from spooled import row_lines

from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import SettingsError, StoreError, StoreUnreachableError
from muelle.store.tree import FolderTree
from service import shipper
from service.observations import Observation
from service.prediction_lines import Layout
from service.settings import Settings
from service.shipper import Shipper, check_prediction_log
from service.spool import Spool, segment_name, waiting

SIGNATURE = Signature("matrix", (Feature("a", "float64"),), (Output("predict", "float64", (-1,)),))
LAYOUT = Layout.of(0, "m", "1", SIGNATURE, ())


class Ground:
    """A spool with segments, and a folder to ship to."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.log = folder / "spool", folder / "log"
        self._writer = Spool(self.spool, 10**9, 60.0, "w0")
        self.ids: list[str] = []

    def segment(self, *ids: str) -> None:
        """Write a complete segment."""
        values = np.ones((1, 1))
        group = [Observation(name, 1.8e9, values, {"predict": values[:, 0]}, 1, 8) for name in ids]
        for line in row_lines(LAYOUT, group):
            self._writer.append(line.text, LAYOUT.heading())
        self._writer.complete()
        self.ids += ids

    def logged(self) -> list[str]:
        found: list[str] = []
        for path, size in FolderTree(self.log).files():
            with FolderTree(self.log).open(path, size) as file:
                found += pq.read_table(io.BytesIO(file.read()))["request_id"].to_pylist()
        return sorted(found)

    def left(self) -> list[str]:
        return [path.name for path in self.spool.iterdir()]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    found = Ground(tmp_path)
    for number in range(3):
        found.segment(f"a{number}", f"b{number}")
    return found


class Tree(FolderTree):
    """A folder that can fail, or be the end of its process."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.errors: list[Exception] = []
        self.put_count = 0

    def put(self, path: str, data: bytes) -> None:
        self.put_count += 1
        if self.errors:
            raise self.errors.pop(0)
        super().put(path, data)


def test_each_row_arrives_once_and_the_spool_is_empty(ground: Ground) -> None:
    shipper = Shipper(ground.spool, FolderTree(ground.log))
    shipper.ship()
    shipper.ship()
    assert ground.logged() == sorted(ground.ids)
    assert ground.left() == []


@pytest.mark.parametrize("moment", ["before the rename", "after the rename", "before the segment is removed"])
def test_a_shipper_that_is_killed_at_any_moment_doubles_nothing(ground: Ground, moment: str) -> None:
    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def ship() -> None:
        if moment == "before the rename":
            Path.replace = die  # type: ignore[assignment,method-assign]
        elif moment == "after the rename":
            import muelle.store.tree

            muelle.store.tree.sync_folder = lambda path: None if not any(path.glob("*.parquet")) else die()
        else:
            Path.unlink = _unlink_of(die)  # type: ignore[assignment,method-assign]
        Shipper(ground.spool, FolderTree(ground.log)).ship()

    for _ in range(2):
        process = multiprocessing.get_context("fork").Process(target=ship)
        process.start()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
        assert len(ground.left()) == 3
        # Others read the log by this pattern, and must not find what is half written.
        assert len(list(ground.log.rglob("*.parquet"))) == (0 if moment == "before the rename" else 1)
    Shipper(ground.spool, FolderTree(ground.log)).ship()
    assert ground.logged() == sorted(ground.ids)
    assert ground.left() == []
    assert not list(ground.log.rglob("*.tmp"))


def _unlink_of(die: Any) -> Any:
    unlink = Path.unlink

    def wrapped(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".jsonl":
            die()
        unlink(path, missing_ok)

    return wrapped


def test_an_outage_is_waited_for_longer_each_time_and_said_once(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    tree = Tree(ground.log)
    tree.errors = [StoreUnreachableError("s3://b/log: refused the connection")] * 9
    shipper = Shipper(ground.spool, tree)
    pauses = []
    with caplog.at_level(logging.INFO):
        for _ in range(9):
            shipper.ship()
            pauses.append(shipper.pause_seconds)
        assert tree.put_count == 9  # one try each time: the others would fare no better
        shipper.ship()
    for number, pause in enumerate(pauses):
        assert min(2**number, 60) / 2 <= pause <= min(2**number, 60)
    assert shipper.pause_seconds < 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "refused the connection" in caplog.records[0].message
    assert ground.logged() == sorted(ground.ids)


def test_a_segment_that_can_never_be_shipped_does_not_hold_up_the_others(ground: Ground) -> None:
    tree = Tree(ground.log)
    tree.errors = [RuntimeError("a bug")]
    Shipper(ground.spool, tree).ship()
    assert len(ground.logged()) == 4
    assert len(ground.left()) == 1


def test_a_segment_that_the_store_always_refuses_does_not_hold_up_the_others(ground: Ground) -> None:
    class Refusing(FolderTree):
        def put(self, path: str, data: bytes) -> None:
            if first in path:
                raise StoreError("403")
            super().put(path, data)

    first = min(segment_name(path) for path in waiting(ground.spool))
    working = Shipper(ground.spool, Refusing(ground.log))
    working.ship()
    working.ship()
    assert ground.logged() == ["a1", "a2", "b1", "b2"]
    assert [name.partition(".jsonl")[0] for name in ground.left()] == [first]


def test_a_store_whose_settings_cannot_be_right_is_a_failure_that_is_counted(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    monkeypatch.setattr(shipper, "CollectorRegistry", lambda: registry)
    monkeypatch.setattr(shipper, "_LAST_SECONDS", 0.0)
    stop = threading.Event()
    stop.set()
    settings = Settings(prediction_log="az://container/log", prediction_log_spool=ground.spool)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    shipper.run(settings, ground.spool.parent, stop)
    assert registry.get_sample_value("muelle_prediction_log_failures_total") == 1
    assert len(ground.left()) == 3


def test_what_a_shipper_counts_can_be_scraped(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    monkeypatch.setattr(shipper, "CollectorRegistry", lambda: registry)
    tree = Tree(ground.log)
    tree.errors = [StoreError("refused")]
    (ground.spool / "torn.jsonl").write_bytes(LAYOUT.heading() + b'\n{"m":0,"n":12,"i":["a","b')
    working = Shipper(ground.spool, tree)
    working.ship()
    assert registry.get_sample_value("muelle_prediction_log_failures_total") == 1
    assert (registry.get_sample_value("muelle_prediction_log_spool_bytes") or 0) > 0
    working.ship()
    model = {"model": "m", "version": "1"}
    assert registry.get_sample_value("muelle_prediction_log_shipped_rows_total", model) == 6
    assert registry.get_sample_value("muelle_prediction_log_spool_bytes") == 0
    assert registry.get_sample_value("muelle_prediction_log_dropped_total", model | {"reason": "error"}) == 12


def test_at_the_end_it_ships_what_is_left_but_not_for_ever(
    ground: Ground, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    stop.set()
    settings = Settings(prediction_log=str(ground.log), prediction_log_spool=ground.spool)
    shipper.run(settings, tmp_path, stop)
    assert ground.logged() == sorted(ground.ids)
    ground.segment("late")
    ticks = iter(range(0, 100, 3))
    tree = Tree(ground.log)
    tree.errors = [StoreUnreachableError("gone")] * 50
    Shipper(ground.spool, tree, clock=lambda: next(ticks)).ship_the_rest(5.0)
    assert tree.put_count == 2
    assert "not shipped, and wait in" in caplog.records[-1].message


def test_it_goes_on_until_it_is_told_to_stop(ground: Ground, tmp_path: Path) -> None:
    stop = threading.Event()
    settings = Settings(prediction_log=str(ground.log), prediction_log_spool=ground.spool)
    thread = threading.Thread(target=shipper.run, args=(settings, tmp_path, stop), daemon=True)
    thread.start()
    for number in range(3):
        ground.segment(f"more{number}")
        deadline = time.monotonic() + 20
        while ground.left() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert ground.logged() == sorted(ground.ids)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_log_that_can_not_work_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_prediction_log(Settings())
    check_prediction_log(Settings(prediction_log=str(tmp_path / "new"), prediction_log_spool=tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    check_prediction_log(Settings(prediction_log=f"file://{tmp_path}/url"))
    check_prediction_log(Settings(prediction_log="s3://bucket/log"))
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"MUELLE_PREDICTION_LOG: .*file/log: can't be made"):
        check_prediction_log(Settings(prediction_log=str(tmp_path / "file" / "log")))
    with pytest.raises(SettingsError, match=r"MUELLE_PREDICTION_LOG_SPOOL: .*can't be made"):
        check_prediction_log(Settings(prediction_log=str(tmp_path), prediction_log_spool=tmp_path / "file"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(SettingsError, match=r"needs pyarrow, which is not installed .*slim"):
        check_prediction_log(Settings(prediction_log=str(tmp_path)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "obstore" else find(name))
    check_prediction_log(Settings(prediction_log=str(tmp_path)))
    with pytest.raises(SettingsError, match="needs obstore"):
        check_prediction_log(Settings(prediction_log="gs://bucket/log"))
