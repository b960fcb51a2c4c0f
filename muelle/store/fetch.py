"""Fetching a bundle from a store into a repository: verified as a whole before it appears there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from muelle.bundle.files import appearing, sha256, write_file
from muelle.bundle.manifest import MANIFEST, Manifest
from muelle.bundle.reader import open_bundle, read_manifest_bytes
from muelle.errors import BundleError, BundleExistsError, IntegrityError, ManifestError, NotFoundError
from muelle.store.remote import Access, Remote, open_remote
from muelle.store.retry import Patience
from muelle.store.source import Source
from muelle.store.transfer import Progress, Transfer, Unwatched

#: As the reader's own.
MANIFEST_LIMIT_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class Fetched:
    """A bundle that is in the repository now.

    Attributes
    ----------
    state : str
        ``fetched``, or ``already there``: then only what was there was verified, and no file was fetched.
    size_bytes : int
        Of all its files but the manifest.
    """

    source: Source
    name: str
    version: str
    digest: str
    path: Path
    state: Literal["fetched", "already there"]
    size_bytes: int


def fetch(
    source: Source, repository: Path, access: Access, *, max_bytes: int, progress: Progress | None = None
) -> Fetched:
    """Put the bundle at a source into ``REPOSITORY/NAME/VERSION``; nothing of it is loaded.

    With a digest, a bundle that is in the repository already is found without asking the store.

    Parameters
    ----------
    source : Source
        Where it is.
    repository : Path
        Made when missing.
    access : Access
        Options and credentials.
    max_bytes : int
        How large all files together may be.
    progress : Progress, optional
        Who watches.

    Raises
    ------
    NotFoundError
        When there is no such bundle.
    StoreError
        When the store can't be reached in time, or refuses.
    BundleError
        When what is there is no bundle, not the expected one, damaged, too large, or can't be written here; nothing of
        it is left behind.
    """
    if source.digest is not None and (path := _find(repository, source.digest)) is not None:
        return _existing(source, path, source.digest)
    watched = progress or Unwatched()
    with Transfer(Patience(access.retry_seconds, watched.say)) as transfer:
        remote = transfer.call(lambda: open_remote(source, access))
        data = transfer.call(lambda: _read_manifest(remote, source))
        with _naming(source):
            manifest = Manifest.from_bytes(data)
        _check_digest(source, f"sha256:{sha256(data)}")
        size = sum(entry.size_bytes for entry in manifest.files.values())
        if size > max_bytes:
            raise BundleError(f"{source}: its files have {size} bytes, more than --max-bytes {max_bytes}")
        target = repository / manifest.name / manifest.version
        if not target.exists():
            watched.expect(size)
            try:
                copy_bundle(manifest, data, remote, target, transfer, watched)
            except (IntegrityError, ManifestError) as error:
                raise type(error)(f"{source}: {error}") from error
            except BundleExistsError:
                pass  # somebody was faster; what they have put there is looked at below
            else:
                digest = f"sha256:{sha256(data)}"
                return Fetched(source, manifest.name, manifest.version, digest, target, "fetched", size)
    return _existing(source, target, f"sha256:{sha256(data)}")


def copy_bundle(
    manifest: Manifest, data: bytes, remote: Remote, target: Path, transfer: Transfer, progress: Progress
) -> None:
    """Copy a bundle's files into a new folder, which appears when all of them were verified.

    Raises
    ------
    IntegrityError
        When a file is not what the manifest says.
    BundleError
        When the folder exists or can't be written.
    """
    with appearing(target) as folder:
        write_file(folder / MANIFEST, [data])
        transfer.each(partial(_download, manifest, name, remote, folder, transfer, progress) for name in manifest.files)
        open_bundle(folder)


def _download(
    manifest: Manifest, name: str, remote: Remote, folder: Path, transfer: Transfer, progress: Progress
) -> None:
    """Write one file; called again when it broke off."""
    (folder / name).unlink(missing_ok=True)
    size = manifest.files[name].size_bytes
    count = 0

    def counted() -> Iterator[bytes]:
        nonlocal count
        for chunk in transfer.until_stopped(remote.chunks(name)):
            count += len(chunk)
            if count > size:
                raise IntegrityError(f"{name}: expected {size} bytes, found more")
            progress.advance(len(chunk))
            yield chunk

    try:
        write_file(folder / name, counted())
    except NotFoundError as error:
        raise IntegrityError(f"{name}: missing from the bundle") from error
    except BaseException:
        progress.advance(-count)
        raise


def _read_manifest(remote: Remote, source: Source) -> bytes:
    try:
        return remote.read(MANIFEST, MANIFEST_LIMIT_BYTES)
    except NotFoundError as error:
        raise NotFoundError(f"no bundle at {source}: {error}") from error


def _check_digest(source: Source, found: str) -> None:
    if source.digest is not None and found != source.digest:
        raise IntegrityError(f"{source}: expected the bundle {source.digest}, found {found}")


@contextlib.contextmanager
def _naming(source: Source) -> Iterator[None]:
    try:
        yield
    except ManifestError as error:
        message = str(error).removeprefix(f"{MANIFEST}: ")
        raise ManifestError(f"{source}: not a bundle that can be read: {MANIFEST}: {message}") from error


def _find(repository: Path, digest: str) -> Path | None:
    """Return the folder of the bundle with a digest, if the repository has it where it belongs."""
    for path in sorted(repository.glob(f"*/*/{MANIFEST}")):
        # Whatever can't be read is not it.
        with contextlib.suppress(BundleError):
            data = read_manifest_bytes(path.parent)
            if f"sha256:{sha256(data)}" == digest:
                manifest = Manifest.from_bytes(data)
                if path.parent == repository / manifest.name / manifest.version:
                    return path.parent
    return None


def _existing(source: Source, path: Path, digest: str) -> Fetched:
    """Verify what is there already, and that it is what is wanted."""
    try:
        bundle = open_bundle(path)
    except BundleError as error:
        raise BundleError(f"{path} is there, but damaged: {error}; remove it and fetch again") from error
    manifest = bundle.manifest
    if bundle.digest != digest:
        raise BundleExistsError(f"{path} is there and is {bundle.digest}; {source} is {digest}; choose another version")
    size = sum(entry.size_bytes for entry in manifest.files.values())
    return Fetched(source, manifest.name, manifest.version, digest, path, "already there", size)
