"""API keys: hashed, from a file, replaced without a restart.

One key a line, ``NAME sha256:HEX``; blank lines and lines that start with ``#`` don't count. A name may stand on
several lines (an old key and its successor), a hash only once. A key is 256 random bits, so that a plain SHA-256 of
it can't be guessed back; a slow password hash would cost every request milliseconds for nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from muelle.errors import MuelleError, SettingsError

_log = logging.getLogger(__name__)

_LINE: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})[ \t]+sha256:([0-9A-Fa-f]{64})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_MAX_BYTES: Final = 1024 * 1024
_LOOK_SECONDS: Final = 1.0

_Entries = tuple[tuple[str, bytes], ...]
#: Device, inode, size, times of change of content and of rights; None for a file that isn't there.
_Stamp = tuple[int, ...] | None


class AuthError(MuelleError):
    """A request that may not be answered, because of its key."""


class MissingKeyError(AuthError):
    """The request carries no key."""


class WrongKeyError(AuthError):
    """The request carries a key that is not one of ours."""


def new_key(name: str) -> tuple[str, str]:
    """Make a key.

    Parameters
    ----------
    name : str
        Who it is for: letters, digits, ``.``, ``_`` and ``-``, at most 63.

    Returns
    -------
    tuple of str
        The key itself, to be handed over and forgotten, and the line for the file.

    Raises
    ------
    SettingsError
        The name is not of that form.
    """
    if _NAME.fullmatch(name) is None:
        raise SettingsError(f"key name: expected up to 63 letters, digits, '.', '_' or '-', got {name[:80]!r}")
    key = secrets.token_urlsafe(32)
    return key, f"{name} sha256:{hashlib.sha256(key.encode('ascii')).hexdigest()}"


class ApiKeys:
    """The keys of a file, which is looked at again at most once a second.

    A file that has vanished or become malformed leaves the last good keys in force, with one logged error a change: a
    slip in an editor must not lock everybody out. So an emptied file revokes nothing; to revoke all, leave one key that
    nobody has.

    Parameters
    ----------
    path : Path
        Links are followed: Kubernetes replaces a mounted secret by changing a link.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    SettingsError
        The file can't be read, holds no key, or has a malformed line (its number is given, never its text).
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        try:
            self._entries, self._stamp = _load(path)
        except OSError as error:
            raise SettingsError(f"API keys: {path} can't be read: {error.strerror or error}") from error
        self._looked = clock()

    def check(self, authorization: str | None, x_api_key: str | None) -> str:
        """Return the name of the key that a request carries.

        Parameters
        ----------
        authorization : str or None
            The header ``Authorization``; counts when it is ``Bearer KEY``.
        x_api_key : str or None
            The header ``X-API-Key``; goes before the other, which a proxy may use for a token of its own.

        Raises
        ------
        MissingKeyError
            Neither header carries a key.
        WrongKeyError
            The key is not in the file.
        """
        key = x_api_key or _bearer(authorization)
        if not key:
            raise MissingKeyError("expected a key as 'X-API-Key: KEY' or 'Authorization: Bearer KEY', got none")
        self.look()
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        found: str | None = None
        # Every entry is compared, each in constant time, so that the time taken tells nothing about which came close.
        for name, expected in self._entries:
            if hmac.compare_digest(digest, expected):
                found = name
        if found is None:
            raise WrongKeyError("the key that came is not a valid one")
        return found

    def look(self) -> None:
        """Read the file again when it has changed since the last look, a second ago or more."""
        if self._clock() - self._looked < _LOOK_SECONDS or not self._lock.acquire(blocking=False):
            return
        try:
            self._looked = self._clock()
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            # Remembered before it is read, so that a bad file is complained about once.
            self._stamp = stamp
            try:
                self._entries, self._stamp = _load(self._path)
            except (OSError, SettingsError) as error:
                _log.error("API keys: the last good ones stay in force: %s", error)
            else:
                _log.info("API keys: read again, %d in force", len(self._entries))
        finally:
            self._lock.release()


def _bearer(authorization: str | None) -> str | None:
    scheme, _, key = (authorization or "").strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _stamp(path: Path) -> _Stamp:
    try:
        return _stamp_of(path.stat())
    except OSError:
        return None


def _stamp_of(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _load(path: Path) -> tuple[_Entries, _Stamp]:
    """Read the file; the stamp is that of the file that was read, also when the link changes meanwhile."""
    with path.open("rb") as file:
        stamp = _stamp_of(os.fstat(file.fileno()))
        return _parse(file.read(_MAX_BYTES + 1), path), stamp


def _parse(data: bytes, path: Path) -> _Entries:
    if len(data) > _MAX_BYTES:
        raise SettingsError(f"API keys: {path}: expected at most {_MAX_BYTES} bytes, got more")
    entries: list[tuple[str, bytes]] = []
    lines: dict[bytes, int] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise SettingsError(f"API keys: {path}, line {number}: expected 'NAME sha256:' and 64 hexadecimal digits")
        digest = bytes.fromhex(match[2])
        if digest in lines:
            raise SettingsError(f"API keys: {path}, line {number}: the same key as in line {lines[digest]}")
        lines[digest] = number
        entries.append((match[1], digest))
    if not entries:
        raise SettingsError(f"API keys: {path}: expected at least one key, got none")
    return tuple(entries)
