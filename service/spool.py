"""The prediction log's spool: files of lines that workers append to, and the shipper turns into Parquet.

A worker appends to one **segment** at a time, with plain write(2): what was written is in the kernel's hands, and a
kill -9 doesn't take it back. The segment is named ``….open`` while it is written, ``….jsonl`` when it is complete. Its
writer holds a lock (flock) on it, which the kernel gives back when the writer is dead, whatever killed it: an open
segment that can be locked has lost its writer, and is complete too. A line that was being written then has no end, and
is cut off.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from muelle.errors import MuelleError

_OPEN: Final = ".open"
_CLOSED: Final = ".jsonl"
#: A segment gets no larger by the next line: what is shipped at once must fit into memory.
_SEGMENT_BYTES: Final = 16 * 1024 * 1024
#: So many segments fill the spool at least, that some can be shipped while others are written.
_LEAST_SEGMENTS: Final = 8
#: How long a worker goes by what it knows of the others' segments.
_LOOK_SECONDS: Final = 1.0
#: An open segment without a byte may have just been made, and not be locked yet.
_EMPTY_SECONDS: Final = 3600.0
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9.-]+")


class SpoolFullError(MuelleError):
    """There is no room: the spool's bound is reached, or the disk's."""


class Spool:
    """What one worker appends to; for one thread.

    Parameters
    ----------
    folder : Path
        Made when missing; all workers' segments are in it.
    most_bytes : int
        Bound of all segments together.
    seconds : float
        A segment is complete when it is that old.
    writer : str
        Who writes, a part of the segments' names.
    """

    def __init__(self, folder: Path, most_bytes: int, seconds: float, writer: str) -> None:
        self._folder = folder
        self._most = most_bytes
        self._segment_bytes = min(_SEGMENT_BYTES, most_bytes // _LEAST_SEGMENTS)
        self._seconds = seconds
        host = _NOT_IN_A_NAME.sub("-", socket.gethostname())[:60]
        self._writer = f"{host}-{writer}"
        self._segment: _Segment | None = None
        self._held = 0
        self._looked: float | None = None

    def append(self, line: bytes, heading: bytes = b"") -> None:
        """Append a line, and in front of it the heading if this segment doesn't have it yet.

        Parameters
        ----------
        line, heading : bytes
            Without a newline.

        Raises
        ------
        SpoolFullError
            When there is no room; nothing of the line is there then.
        OSError
            When the file system refuses for another reason.
        """
        size = len(line) + len(heading) + 2
        if self._held_bytes() + size > self._most:
            raise SpoolFullError(f"{self._folder} holds {self._held} bytes, {self._most} are allowed")
        if self._segment is not None and self._segment.size + size > self._segment_bytes:
            self.complete()
        if self._segment is None:
            self._segment = _Segment(self._folder, self._writer)
        try:
            self._held += self._segment.append(line, heading)
        except OSError as error:
            if not self._segment.whole:
                self.complete()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise SpoolFullError(f"{self._folder}: {error.strerror}") from error
            raise

    def due_seconds(self) -> float | None:
        """Return in how many seconds the segment is to be completed; None when there is none."""
        if self._segment is None:
            return None
        return max(0.0, self._segment.started + self._seconds - time.monotonic())

    def complete(self) -> None:
        """Hand the segment over to the shipper; does nothing when there is none."""
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.complete()

    def _held_bytes(self) -> int:
        now = time.monotonic()
        if self._looked is None or now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._held = held_bytes(self._folder)
        return self._held


class _Segment:
    """One file that is being written."""

    def __init__(self, folder: Path, writer: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{writer}-{secrets.token_hex(4)}"
        self._path = folder / f"{name}{_OPEN}"
        # Nobody else's business: these are payloads.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems have no locks; each line tries anew.
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            raise
        self._headings: set[bytes] = set()
        self.started = time.monotonic()
        self.size = 0
        #: Whether it ends with a whole line.
        self.whole = True

    def append(self, line: bytes, heading: bytes) -> int:
        """Write, or take back what was written when there is no room for all; return how much was written."""
        new = heading if heading and heading not in self._headings else b""
        data = memoryview(b"".join((new, b"\n" if new else b"", line, b"\n")))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            try:
                os.ftruncate(self._file, self.size)
            except OSError:
                self.whole = False
            raise
        self._headings.add(heading)
        self.size += written
        return written

    def complete(self) -> None:
        """Rename it; where that fails, the shipper finds it without its lock."""
        with contextlib.suppress(OSError):
            self._path.rename(self._path.with_suffix(_CLOSED))
        # Of a late write that a network file system refuses, this is where it is said.
        with contextlib.suppress(OSError):
            os.close(self._file)


def held_bytes(folder: Path) -> int:
    """Return the size of all segments together."""
    return sum(size for _, size, _ in _segments(folder))


def waiting(folder: Path) -> list[Path]:
    """Return the segments that may be complete, oldest first; `taken` knows whether they are."""
    now = time.time()
    return [path for path, size, changed in sorted(_segments(folder)) if size or now - changed > _EMPTY_SECONDS]


@contextlib.contextmanager
def taken(path: Path) -> Iterator[BinaryIO | None]:
    """Give a segment to read, locked, so that two shippers don't read the same.

    Yields
    ------
    binary file or None
        None when it is still being written, or is another's, or gone.
    """
    try:
        # To write, too: some network file systems give no exclusive lock to who only reads.
        file = path.open("r+b")
    except FileNotFoundError:
        # Completed, and so renamed, or shipped.
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file if _is_still_there(path, file) else None


def _is_still_there(path: Path, file: BinaryIO) -> bool:
    """Whether the file has not been completed, and so renamed, or shipped, between being opened and being locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def segment_name(path: Path) -> str:
    """Return a segment's name, which is the same open and completed."""
    return path.name.removesuffix(path.suffix)


def _segments(folder: Path) -> Iterator[tuple[Path, int, float]]:
    """Yield path, size in bytes, and Unix time of the last change."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.name.endswith((_OPEN, _CLOSED)):
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    yield Path(entry.path), found.st_size, found.st_mtime
