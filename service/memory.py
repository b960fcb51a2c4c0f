"""What this server answered lately, so that a label that comes later finds the prediction that it belongs to.

Each worker slot has a ring of fixed size in a file of the metrics folder, which all workers map. Only the slot's worker
writes into it, right after an answer was made; each worker that takes feedback looks into all of them. A recycled
worker goes on where its predecessor ended, and what a killed one wrote is there still: it is the kernel's by then.

A row is found by a 64-bit key, made of Python's own hash of the request's id and of the row's number. That hash is
salted, but all workers are forked from one arbiter and share the salt. For that reason each server begins with nothing.

Layout, for N rows: N keys, then N records (sequence, model, prediction, time), then N sequences of what was labelled.
A row is labelled when its own sequence stands there, so that one that overwrites another is unlabelled by itself.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from muelle.bundle.data import Array
from muelle.bundle.signature import NUMBERS, Signature

_log = logging.getLogger(__name__)

_FILES: Final = "memory-w*.ring"
_KEY_BYTES: Final = 8
_RECORD: Final = struct.Struct("=QQdd")
_RECORD_TYPE: Final = np.dtype([("sequence", "u8"), ("model", "u8"), ("prediction", "f8"), ("answered_at", "f8")])
_ROW_BYTES: Final = _KEY_BYTES + _RECORD.size + _KEY_BYTES
_BITS: Final = 2**64 - 1
#: 2^64 divided by the golden ratio, odd: no two rows of a request have the same key, and they lie far apart.
_STEP: Final = 0x9E3779B97F4A7C15
_ZEROS: Final = bytes(1024 * 1024)
#: So much is left free for what comes after: the metrics' files of all workers, without which none of them starts.
_RESERVE_BYTES: Final = 8 * 1024 * 1024
#: How many rows are looked at together: what numpy needs for that stays small, however long the ring is.
_LOOKED_AT: Final = 1 << 16
#: A prediction that is none of the model's classes.
_NO_CLASS: Final = math.nan


class Entry(NamedTuple):
    """One row that was answered.

    Attributes
    ----------
    ring, place, sequence : Ring, int, int
        Where it stands, and which of all rows that ever stood there it is.
    model : int
        As `model_key` says.
    prediction : float
        The class's index among the signature's, NaN where it is none of them; or the number.
    answered_at : float
        Unix time, seconds.
    """

    ring: Ring
    place: int
    sequence: int
    model: int
    prediction: float
    answered_at: float


def row_key(request_id: str, row: int) -> int:
    """Return the key of a row, from 1 to 2^64 - 1; equal in all processes that were forked from one."""
    return (hash(request_id) + row * _STEP) & _BITS or 1


def model_key(name: str, version: str, digest: str) -> int:
    """Return the key of a model; a bundle that was replaced under its version has another one."""
    text = "\0".join((name, version, digest)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def is_comparable(signature: Signature) -> bool:
    """Whether a model answers one class or number a row, so that a label can be compared to it."""
    output = signature.output("predict")
    return len(output.shape) == 1 and (output.classes is not None or output.dtype in NUMBERS)


class Ring:
    """One slot's file, mapped.

    Parameters
    ----------
    path : Path
        The file; it must have the size that `size_of` says.
    rows : int
        How many rows it holds.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._rows = rows
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), rows * _ROW_BYTES)
        records_at, labelled_at = rows * _KEY_BYTES, rows * (_KEY_BYTES + _RECORD.size)
        self._records_at = records_at
        self._key_cells = memoryview(self._map)[:records_at].cast("Q")
        self._keys: npt.NDArray[np.uint64] = np.frombuffer(self._map, np.uint64, rows)
        self._records = np.frombuffer(self._map, _RECORD_TYPE, rows, records_at)
        self._labelled: npt.NDArray[np.uint64] = np.frombuffer(self._map, np.uint64, rows, labelled_at)
        self._lock = threading.Lock()
        # The slot's last holder may have been killed between a record and its key; what counts is what was begun.
        self._next = int(self._records["sequence"].max()) + 1

    def add(self, key: int, model: int, prediction: float) -> None:
        """Write one row; its key last, and none before, so that nobody takes half of it for a whole."""
        with self._lock:
            sequence = self._next
            self._next = sequence + 1
            place = sequence % self._rows
            self._key_cells[place] = 0
            _RECORD.pack_into(
                self._map, self._records_at + place * _RECORD.size, sequence, model, prediction, time.time()
            )
            self._key_cells[place] = key

    def add_all(self, first_key: int, model: int, predictions: npt.NDArray[np.float64]) -> None:
        """Write a request's rows; of more than the ring holds, the last."""
        left = predictions[-self._rows :]
        first_row = len(predictions) - len(left)
        steps = np.arange(first_row, len(predictions), dtype=np.uint64) * np.uint64(_STEP)
        keys = steps + np.uint64(first_key)
        keys[keys == 0] = 1
        with self._lock:
            sequences = np.arange(self._next, self._next + len(left), dtype=np.uint64)
            self._next += len(left)
            place = int(sequences[0]) % self._rows
            until_end = min(len(left), self._rows - place)
            now = time.time()
            for rows, begin in ((slice(0, until_end), place), (slice(until_end, len(left)), 0)):
                places = slice(begin, begin + rows.stop - rows.start)
                self._keys[places] = 0
                records = self._records[places]
                records["sequence"] = sequences[rows]
                records["model"] = model
                records["prediction"] = left[rows]
                records["answered_at"] = now
                self._keys[places] = keys[rows]

    def find(self, wanted: npt.NDArray[np.uint64]) -> dict[int, Entry]:
        """Return the latest row with each of these keys; `wanted` is sorted, without repetition, and not empty."""
        latest: dict[int, Entry] = {}
        for begin in range(0, self._rows, _LOOKED_AT):
            for key, entry in self._find_in(wanted, begin):
                known = latest.get(key)
                if known is None or known.sequence < entry.sequence:
                    latest[key] = entry
        return latest

    def _find_in(self, wanted: npt.NDArray[np.uint64], begin: int) -> Iterator[tuple[int, Entry]]:
        """Yield the latest row with each of these keys in the part of the ring that begins there."""
        places = self._places(wanted, begin)
        if not len(places):
            return
        keys, records = self._keys[places], self._records[places]
        # By arrays: where a caller has one id for everything, all rows of the part are found.
        order = np.lexsort((records["sequence"], keys))
        last = order[np.append(keys[order][1:] != keys[order][:-1], True)]
        for key, place, record in zip(keys[last].tolist(), places[last].tolist(), records[last].tolist(), strict=True):
            # Else it was overwritten meanwhile.
            if self._key_cells[place] == key:
                yield key, Entry(self, place, *record)

    def _places(self, wanted: npt.NDArray[np.uint64], begin: int) -> npt.NDArray[np.int64]:
        """Return where one of these keys stands, in the part of the ring that begins there."""
        keys = self._keys[begin : begin + _LOOKED_AT]
        nearest = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        found: npt.NDArray[np.int64] = np.flatnonzero(wanted[nearest] == keys) + begin
        return found

    def label(self, entry: Entry) -> bool:
        """Mark a row as labelled; whether it was not so before. Whoever calls it must be the only one to."""
        # Sequences only grow: a larger one is a later row's, and this one is gone.
        if int(self._labelled[entry.place]) >= entry.sequence:
            return False
        self._labelled[entry.place] = entry.sequence
        return True


class Memory:
    """All slots' rings, as a worker sees them.

    Parameters
    ----------
    directory : Path
        The metrics folder.
    slot : int
        This worker's slot.
    rows : int
        How many rows each ring holds.
    """

    def __init__(self, directory: Path, slot: int, rows: int) -> None:
        self._directory = directory
        self._rows = rows
        self._rings: dict[Path, Ring] = {}
        self._own: Ring | None = None
        path = directory / f"memory-w{slot}.ring"
        try:
            _make(path, rows)
            self._own = self._ring(path)
        except OSError as error:
            # No room: it answers all the same, and can still match what other workers remember.
            _log.error("slot %d remembers no answers, their labels will be unmatched: %s", slot, error)

    def of(self, signature: Signature, key: int) -> ModelMemory | None:
        """Return what remembers a model's answers; None where they aren't comparable, or there was no room."""
        if self._own is None or not is_comparable(signature):
            return None
        return ModelMemory(self._own, key, signature.output("predict").classes)

    def find(self, keys: Sequence[int]) -> list[Entry | None]:
        """Return the latest row with each key; a caller may have used one id for several requests."""
        wanted = np.unique(np.array(keys, np.uint64))
        latest: dict[int, Entry] = {}
        for path in sorted(self._directory.glob(_FILES)):
            ring = self._ring(path)
            for key, entry in ring.find(wanted).items() if ring is not None else ():
                known = latest.get(key)
                if known is None or known.answered_at < entry.answered_at:
                    latest[key] = entry
        return [latest.get(key) for key in keys]

    def _ring(self, path: Path) -> Ring | None:
        """Return a slot's ring; None when it is not whole yet."""
        ring = self._rings.get(path)
        if ring is None:
            try:
                if path.stat().st_size != self._rows * _ROW_BYTES:
                    return None
                ring = self._rings[path] = Ring(path, self._rows)
            except OSError as error:
                _log.error("%s can't be read, labels of its rows will be unmatched: %s", path.name, error)
        return ring


class ModelMemory:
    """What remembers one version's answers; thread-safe. Made by `Memory.of`."""

    def __init__(self, ring: Ring, key: int, classes: Sequence[Any] | None) -> None:
        self._ring = ring
        self._key = key
        self._classes = None if classes is None else {value: float(place) for place, value in enumerate(classes)}

    def remember(self, request_id: str, answers: Mapping[str, Array], rows: int) -> None:
        """Keep a request's predictions; called while its caller waits, so that no label can come too early.

        Parameters
        ----------
        request_id : str
            As in the answer.
        answers : mapping
            Output name to what the model answered; without ``predict`` there is nothing to keep.
        rows : int
            n_samples.
        """
        predicted = answers.get("predict")
        if predicted is None:
            return
        classes = self._classes
        if rows == 1:
            value = predicted.item()
            self._ring.add(
                hash(request_id) & _BITS or 1, self._key, value if classes is None else classes.get(value, _NO_CLASS)
            )
        elif classes is None:
            self._ring.add_all(hash(request_id) & _BITS, self._key, predicted.astype(np.float64))
        else:
            found = [classes.get(value, _NO_CLASS) for value in predicted.tolist()]
            self._ring.add_all(hash(request_id) & _BITS, self._key, np.array(found, np.float64))


def forget(directory: Path) -> None:
    """Remove what an earlier server remembered; in the arbiter, before it forks."""
    for path in directory.glob(_FILES):
        path.unlink(missing_ok=True)


def _make(path: Path, rows: int) -> None:
    """Make a slot's file unless it is there, with all its bytes.

    Without them, who writes to a mapped hole when the disk is full is killed by the kernel. The file must not take the
    last of the room itself. That is looked at before each part of it, since other workers make theirs at the same time.

    Raises
    ------
    OSError
        When there is no room; the file is gone then.
    """
    size = rows * _ROW_BYTES
    if path.exists() and path.stat().st_size == size:
        return
    try:
        with path.open("wb") as file:
            for begin in range(0, size, len(_ZEROS)):
                _check_room(path, size - begin)
                file.write(_ZEROS[: min(len(_ZEROS), size - begin)])
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _check_room(path: Path, size: int) -> None:
    status = os.statvfs(path.parent)
    free = status.f_bavail * status.f_frsize
    # Without blocks: a file system that doesn't tell, or has no bound.
    if status.f_blocks and free < size + _RESERVE_BYTES:
        raise OSError(
            errno.ENOSPC, f"expected room for {size} bytes and {_RESERVE_BYTES} to spare, {free} are free", str(path)
        )
