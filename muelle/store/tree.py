"""A place for many files, in a folder or a bucket: the prediction log's. A file appears whole, and may be put again."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from muelle.bundle.files import sync_folder, write_file
from muelle.errors import NotFoundError, StoreError, StoreUnreachableError
from muelle.store.remote import Access, local_path
from muelle.store.source import OBJECT_SCHEMES, Source

_TEMPORARY: Final = ".tmp"


class Tree(Protocol):
    """Files by their paths, with slashes between. Used by several threads at once."""

    def put(self, path: str, data: bytes) -> None:
        """Store a file, or the same file again; readers see all of it or nothing.

        Raises
        ------
        StoreError
            When that is refused; `StoreUnreachableError` when trying again may help.
        """
        ...

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield path and size in bytes of each file, in no certain order; raises as `put` does."""
        ...

    def open(self, path: str, size_bytes: int) -> BinaryIO:
        """Return a file to read and seek in; its size is what `files` said. Raises as `put` does."""
        ...


class FolderTree:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: str, data: bytes) -> None:
        """Write beside the place, fsync, rename."""
        target = self._root / path
        # The same name again after a crash, so that what it left is replaced; and one that `*.parquet` does not mean.
        temporary = target.with_name(f".{target.name}{_TEMPORARY}")
        try:
            _make(target.parent)
            temporary.unlink(missing_ok=True)
            write_file(temporary, [data])
            temporary.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            raise StoreUnreachableError(f"{target}: can't be written: {error.strerror or error}") from error

    def files(self) -> Iterator[tuple[str, int]]:
        """Yield paths and sizes, without what is half written."""
        if not self._root.is_dir():
            raise NotFoundError(f"{self._root}: no such folder")
        for folder, _, names in os.walk(self._root, onerror=_refuse):
            for name in names:
                path = Path(folder, name)
                if not name.endswith(_TEMPORARY):
                    try:
                        size = path.stat().st_size
                    except FileNotFoundError:
                        continue  # renamed or removed meanwhile
                    yield path.relative_to(self._root).as_posix(), size

    def open(self, path: str, size_bytes: int) -> BinaryIO:
        """Open it."""
        try:
            return (self._root / path).open("rb", buffering=io.DEFAULT_BUFFER_SIZE)
        except OSError as error:
            raise StoreError(f"{self._root / path}: can't be read: {error.strerror}") from error


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise StoreError(f"{error.filename}: can't be read: {error.strerror}") from error


def open_tree(place: str, access: Access) -> Tree:
    """Return the tree that a folder's path or a URL means; nothing is asked of it yet.

    Parameters
    ----------
    place : str
        A path, or a URL of ``file``, ``s3``, ``gs`` or ``az``.
    access : Access
        Options and credentials.

    Raises
    ------
    StoreError
        When it is neither, or the store's settings in the environment can't be right.
    """
    if "://" not in place:
        return FolderTree(Path(place))
    source = Source.parse(place)
    if source.digest is not None:
        raise StoreError(f"{source}: a digest is a bundle's, expected a URL without one")
    if source.scheme == "file":
        return FolderTree(local_path(source))
    if source.scheme in OBJECT_SCHEMES:
        from muelle.store.objects import bucket_tree

        return bucket_tree(source, access)
    raise StoreError(f"{source}: expected a folder, or a URL of file://, s3://, gs:// or az://")


def _make(folder: Path) -> None:
    """Make a folder and those above it, so that they outlive a power cut."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
