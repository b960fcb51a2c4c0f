"""A tree of files in a folder: a file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from muelle.errors import NotFoundError, StoreError, StoreUnreachableError
from muelle.store.remote import Access
from muelle.store.tree import FolderTree, open_tree

PATH = "model=m/version=1/date=2026-11-21/hour=03/x.parquet"


def test_a_file_is_put_in_its_folder_and_again(tmp_path: Path) -> None:
    tree = FolderTree(tmp_path / "log")
    tree.put(PATH, b"first")
    tree.put(PATH, b"second")
    assert list(tree.files()) == [(PATH, 6)]
    with tree.open(PATH, 6) as file:
        assert file.read() == b"second"
        assert file.seek(3) == 3
        assert file.read() == b"ond"


def test_what_a_crash_left_half_written_is_not_listed_and_is_replaced(tmp_path: Path) -> None:
    tree = FolderTree(tmp_path)
    folder = (tmp_path / PATH).parent
    folder.mkdir(parents=True)
    (folder / ".x.parquet.tmp").write_bytes(b"hal")
    assert list(tree.files()) == []
    tree.put(PATH, b"whole")
    assert os.listdir(folder) == ["x.parquet"]


def test_what_the_file_system_says_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnreachableError, match=r"file/a/b: can't be written: File exists"):
        FolderTree(tmp_path / "file").put("a/b", b"")
    with pytest.raises(NotFoundError, match="no such folder"):
        list(FolderTree(tmp_path / "nowhere").files())
    with pytest.raises(StoreError, match="can't be read: No such file"):
        FolderTree(tmp_path).open("none", 1)


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FolderTree(tmp_path).put("secret/x", b"1")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match=r"secret: can't be read: Permission denied"):
        list(FolderTree(tmp_path).files())


def test_a_place_is_a_path_or_a_url(tmp_path: Path) -> None:
    open_tree(str(tmp_path / "a"), Access()).put("x", b"1")
    open_tree(f"file://{tmp_path}/b", Access()).put("x", b"1")
    assert (tmp_path / "a" / "x").exists()
    assert (tmp_path / "b" / "x").exists()
    with pytest.raises(StoreError, match="expected a folder, or a URL of file://, s3://, gs:// or az://"):
        open_tree("https://example.test/log", Access())
    with pytest.raises(StoreError, match="a digest is a bundle's"):
        open_tree(f"s3://b/log@sha256:{'0' * 64}", Access())
