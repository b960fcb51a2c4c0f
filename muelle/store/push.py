"""Pushing a bundle to a store: its files first and its manifest last, so that half of it is never a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from muelle.bundle import Bundle, open_bundle
from muelle.bundle.files import sha256
from muelle.bundle.manifest import MANIFEST
from muelle.bundle.reader import read_manifest_bytes
from muelle.errors import BundleExistsError, IntegrityError, NotFoundError
from muelle.store.fetch import MANIFEST_LIMIT_BYTES, copy_bundle
from muelle.store.remote import Access, LocalFolder, Remote, WritableRemote, local_path, open_writable
from muelle.store.retry import Patience
from muelle.store.source import Source
from muelle.store.transfer import Progress, Transfer, Unwatched


@dataclass(frozen=True)
class Pushed:
    """A bundle that is at a URL now.

    Attributes
    ----------
    source : Source
        The URL with the digest: what to fetch.
    state : str
        ``pushed``, or ``already there``.
    size_bytes : int
        Of all its files but the manifest.
    """

    source: Source
    name: str
    version: str
    state: Literal["pushed", "already there"]
    size_bytes: int


def push(path: Path, target: Source, access: Access, *, progress: Progress | None = None) -> Pushed:
    """Verify a bundle and store it at a URL; another bundle there is never overwritten.

    Parameters
    ----------
    path : Path
        The bundle's folder.
    target : Source
        Where it shall be; a digest there must be the bundle's.
    access : Access
        Options and credentials.
    progress : Progress, optional
        Who watches.

    Raises
    ------
    BundleExistsError
        When there is another bundle.
    StoreError
        When the store can't be reached in time, or refuses.
    BundleError
        When the bundle is damaged.
    """
    bundle = open_bundle(path)
    if target.digest not in (None, bundle.digest):
        raise IntegrityError(f"{path}: expected the bundle {target.digest}, it is {bundle.digest}")
    data = read_manifest_bytes(path)
    watched = progress or Unwatched()
    with Transfer(Patience(access.retry_seconds, watched.say)) as transfer:
        if target.scheme == "file":
            state = _to_folder(bundle, data, target, transfer, watched)
        else:
            remote = transfer.call(lambda: open_writable(target, access))
            state = _to_store(bundle, data, target, remote, transfer, watched)
    manifest = bundle.manifest
    size = sum(entry.size_bytes for entry in manifest.files.values())
    return Pushed(Source(target.url, bundle.digest), manifest.name, manifest.version, state, size)


def _to_store(
    bundle: Bundle, data: bytes, target: Source, remote: WritableRemote, transfer: Transfer, progress: Progress
) -> Literal["pushed", "already there"]:
    if _is_there(bundle, target, remote, transfer):
        return "already there"
    files = bundle.manifest.files
    progress.expect(sum(entry.size_bytes for entry in files.values()))

    def upload(name: str) -> None:
        remote.upload(name, bundle.path / name)
        progress.advance(files[name].size_bytes)

    transfer.each(partial(upload, name) for name in files)
    try:
        transfer.call(lambda: remote.finish(data))
    except BundleExistsError:
        # Another writer, or the answer to our own first attempt was lost.
        if not _is_there(bundle, target, remote, transfer):
            raise
    return "pushed"


def _to_folder(
    bundle: Bundle, data: bytes, target: Source, transfer: Transfer, progress: Progress
) -> Literal["pushed", "already there"]:
    """Copy into a folder as fetching does: the whole of it appears at once."""
    folder = local_path(target)
    if _is_there(bundle, target, LocalFolder(folder), transfer):
        return "already there"
    progress.expect(sum(entry.size_bytes for entry in bundle.manifest.files.values()))
    copy_bundle(bundle.manifest, data, LocalFolder(bundle.path), folder, transfer, progress)
    return "pushed"


def _is_there(bundle: Bundle, target: Source, remote: Remote, transfer: Transfer) -> bool:
    """Say whether the very bundle is there already; raises when another one is."""
    try:
        found = sha256(transfer.call(lambda: remote.read(MANIFEST, MANIFEST_LIMIT_BYTES)))
    except NotFoundError:
        return False
    if f"sha256:{found}" != bundle.digest:
        raise BundleExistsError(
            f"{target} holds another bundle, sha256:{found}; it is not overwritten, choose another URL"
        )
    return True
