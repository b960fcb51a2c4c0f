"""What all workers serve: written down by the first that looks, and kept until a reload."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from lifecycle import factor_bundle

from muelle.bundle import open_bundle
from muelle.errors import NotFoundError
from service.selection import Selection, Version, pinned, select
from service.settings import Settings


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one model, and a place for notes beside it."""
    factor_bundle(tmp_path / "models", name="a")
    (tmp_path / "notes").mkdir()
    return tmp_path / "models"


def settings_for(models: Path, *serve: str) -> Settings:
    return Settings(models=(models,), serve=serve)


def test_a_selection_names_folders_and_digests(models: Path) -> None:
    found = select(settings_for(models, "a@1", "a@2"))
    digest = open_bundle(models / "a" / "1").digest
    missing = f"named by MUELLE_SERVE, but not in {models}; there is a 1"
    versions = {"1": Version(f"{models}/a/1", digest), "2": Version("", reason=missing)}
    assert found == Selection({"a": versions}, "a", ())


def test_a_bundle_that_can_not_be_read_keeps_its_reason(models: Path) -> None:
    (models / "a" / "1" / "manifest.json").unlink()
    assert select(settings_for(models)).models["a"]["1"].reason == "manifest.json: missing from the bundle"


def test_who_comes_later_goes_by_what_the_first_one_found(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes" / "selection-0.json"
    first = pinned(settings_for(models), path)
    factor_bundle(models, name="a", version="2")
    shutil.rmtree(models / "a" / "1")
    assert pinned(settings_for(models), path) == first
    assert list(first.models["a"]) == ["1"]
    # After a reload it is another file.
    assert list(pinned(settings_for(models), path.with_name("selection-1.json")).models["a"]) == ["2"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["selection-0.json", "selection-1.json"]


def test_of_two_that_look_at_once_both_go_by_the_faster(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notes" / "selection-0.json"
    factor_bundle(tmp_path / "others", name="b")

    def look(settings: Settings) -> Selection:
        monkeypatch.undo()
        pinned(settings_for(tmp_path / "others"), path)
        return select(settings)

    monkeypatch.setattr("service.selection.select", look)
    assert list(pinned(settings_for(models), path).models) == ["b"]
    assert [entry.name for entry in path.parent.iterdir()] == ["selection-0.json"]


def test_nothing_is_written_down_while_there_is_nothing_to_serve(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "notes" / "selection-0.json"
    with pytest.raises(NotFoundError):
        pinned(settings_for(tmp_path / "nowhere"), path)
    (tmp_path / "empty").mkdir()
    assert pinned(settings_for(tmp_path / "empty"), path).models == {}
    assert list(path.parent.iterdir()) == []
    assert list(pinned(settings_for(models), path).models) == ["a"]


def test_what_can_not_be_written_down_is_served_with_a_warning(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = pinned(settings_for(models), tmp_path / "nowhere" / "selection-0.json")
    assert list(found.models) == ["a"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("a worker that is replaced may serve other versions than its siblings: ")
