"""Digests, and the crash-safe publication of a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from muelle.errors import BundleError, BundleExistsError

#: What a killed writer left behind starts so; readers of a repository pass over names with a leading dot.
TEMPORARY_PREFIX: Final = ".tmp-"
#: Older temporary folders are no longer being written by anyone.
_STALE_SECONDS: Final = 3600


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a plain file as 64 hex digits, following no link.

    Raises
    ------
    OSError
        When it can't be opened; ``ELOOP`` when it is a link.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(target: Path, contents: Mapping[str, bytes]) -> None:
    """Make a new folder with these files appear at once, or not at all; see `appearing`.

    Parameters
    ----------
    target : Path
        The folder to appear; its parent is made when missing.
    contents : mapping
        File name to bytes.

    Raises
    ------
    BundleExistsError
        When `target` exists: a published folder is never changed.
    BundleError
        When the file system refuses (full, read-only, …); nothing is left behind.
    """
    with appearing(target) as temporary:
        for name, data in contents.items():
            write_file(temporary / name, [data])


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Give a folder to write files into, which becomes `target` at once when the block ends without an error.

    It is a temporary folder beside `target`; whoever writes into it fsyncs the files, as `write_file` does, then the
    folder is fsynced and renamed. A crash leaves at most a temporary folder, which the next publication beside it
    removes once it is an hour old.

    Parameters
    ----------
    target : Path
        The folder to appear; its parent is made when missing.

    Yields
    ------
    Path
        The folder to write into.

    Raises
    ------
    BundleExistsError
        When `target` exists: a published folder is never changed.
    BundleError
        When the file system refuses (full, read-only, …); nothing is left behind.
    """
    temporary = target.parent / f"{TEMPORARY_PREFIX}{target.name}-{secrets.token_hex(4)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target.parent)
        if target.exists():
            raise BundleExistsError(f"{target} exists; a version is never overwritten, choose another")
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        _rename(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        raise BundleError(f"{target}: can't be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a new file and fsync it; raises OSError as the file system does."""
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _rename(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError as error:
        # Another writer was faster between the check and here.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise BundleExistsError(f"{target} exists; a version is never overwritten, choose another") from error
        raise


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that what was made or renamed in it is there after a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(folder: Path) -> None:
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        # It may vanish meanwhile: another writer cleans too.
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
