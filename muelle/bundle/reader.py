"""Opening a bundle: everything is verified before any file is handed to a loader."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from muelle.bundle.files import file_sha256, sha256
from muelle.bundle.golden import Golden
from muelle.bundle.manifest import GOLDEN, MANIFEST, PROFILE, FileEntry, Manifest
from muelle.bundle.profile import Profile
from muelle.errors import BundleError, IntegrityError, ManifestError

#: A manifest is some kilobytes; this bound keeps a hostile one from filling memory.
_MANIFEST_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: its files had the manifest's digests when it was opened.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : Manifest
        What it says of itself.
    digest : str
        ``sha256:`` and the SHA-256 of manifest.json, which holds every other file's: it names the whole bundle.
    """

    path: Path
    manifest: Manifest
    digest: str

    def read(self, name: str) -> bytes:
        """Return a file's bytes, checked once more: what is loaded is what was verified.

        Raises
        ------
        IntegrityError
            When it changed since the bundle was opened.
        """
        data = _read_plain(self.path / name, name, self.manifest.files[name].size_bytes)
        if sha256(data) != self.manifest.files[name].sha256:
            raise IntegrityError(f"{name}: changed while it was being read")
        return data

    @cached_property
    def profile(self) -> Profile:
        """The reference profile."""
        with _naming(PROFILE):
            return Profile.from_bytes(self.read(PROFILE))

    @cached_property
    def golden(self) -> Golden:
        """The golden rows."""
        with _naming(GOLDEN):
            return Golden.from_bytes(self.read(GOLDEN), self.manifest.signature)


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle; nothing of the model is loaded.

    Parameters
    ----------
    path : path
        The bundle's folder.

    Returns
    -------
    Bundle

    Raises
    ------
    ManifestError
        When manifest.json is not what the format says.
    IntegrityError
        When a file is missing, altered, extra, a link, or not a plain file.
    BundleError
        When there is no such folder.
    """
    folder = Path(path)
    data = read_manifest_bytes(folder)
    with _naming(MANIFEST):
        manifest = Manifest.from_bytes(data)
    _check_names(folder, manifest)
    for name, entry in manifest.files.items():
        _check_file(folder / name, name, entry)
    return Bundle(path=folder, manifest=manifest, digest=f"sha256:{sha256(data)}")


def read_manifest_bytes(folder: Path) -> bytes:
    """Return manifest.json's bytes; raises as `open_bundle` does."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such folder")
    return _read_plain(folder / MANIFEST, MANIFEST, _MANIFEST_LIMIT_BYTES)


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """Put the file in front of what is wrong with a field of it."""
    try:
        yield
    except ManifestError as error:
        message = str(error)
        raise ManifestError(message if message.startswith(file) else f"{file}: {message}") from error


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Check that the folder holds the manifest's files and nothing else."""
    try:
        found = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise BundleError(f"{folder}: can't be read: {error.strerror}") from error
    expected = {MANIFEST, *manifest.files}
    if missing := sorted(expected - found):
        raise IntegrityError(f"{', '.join(missing)}: missing from the bundle")
    if extra := sorted(found - expected):
        raise IntegrityError(f"{', '.join(extra)}: not in the manifest")


def _check_file(path: Path, name: str, entry: FileEntry) -> None:
    _check_plain(path, name)
    try:
        size = path.lstat().st_size
        if size != entry.size_bytes:
            raise IntegrityError(f"{name}: expected {entry.size_bytes} bytes, found {size}")
        digest = file_sha256(path)
    except OSError as error:
        raise IntegrityError(f"{name}: can't be read: {error.strerror}") from error
    if digest != entry.sha256:
        raise IntegrityError(f"{name}: its SHA-256 is {digest}, the manifest says {entry.sha256}")


def _check_plain(path: Path, name: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        missing = "missing from the bundle"
        raise (ManifestError if name == MANIFEST else IntegrityError)(f"{name}: {missing}") from error
    except OSError as error:
        raise IntegrityError(f"{name}: can't be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        kind = "a link" if stat.S_ISLNK(mode) else "not a plain file"
        raise IntegrityError(f"{name}: expected a plain file, it is {kind}")


def _read_plain(path: Path, name: str, limit: int) -> bytes:
    _check_plain(path, name)
    try:
        # O_NOFOLLOW: a link put there after the check is refused too.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise IntegrityError(f"{name}: can't be read: {error.strerror}") from error
    if len(data) > limit:
        raise IntegrityError(f"{name}: larger than {limit} bytes")
    return data
