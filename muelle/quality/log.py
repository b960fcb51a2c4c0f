"""The prediction log, read: which files there are, and their rows in a stream."""

from __future__ import annotations

import contextlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from muelle.bundle.data import Array
from muelle.bundle.signature import Scalar
from muelle.errors import MuelleError
from muelle.quality.evaluate import PredictionBatch
from muelle.quality.labels import LabelBatch
from muelle.store.tree import Tree

T = TypeVar("T")

#: What `service.prediction_tables` writes; it stands beside this package and can't be imported.
_PREDICTIONS: Final = re.compile(r"model=([^/]+)/version=([^/]+)/date=(\d{4}-\d\d-\d\d)/(?:[^/]+/)*[^/.][^/]*\.parquet")
_LABELS: Final = re.compile(r"_feedback/date=(\d{4}-\d\d-\d\d)/(?:[^/]+/)*[^/.][^/]*\.parquet")
_METADATA_KEY: Final = b"muelle"
_FORMAT: Final = 1
_PREDICTION_COLUMNS: Final = ("request_id", "row", "answered_at", "predict", "predict_proba")
_LABEL_COLUMNS: Final = ("request_id", "row", "label", "observed_at")
_TIME: Final = pa.timestamp("us", tz="UTC")
#: Files that are fetched before they are needed, and threads that do it: object stores take their time for each.
_AHEAD: Final = 16
_THREADS: Final = 8
_BATCH_ROWS: Final = 65_536

#: Calls something, which may have to be tried again.
Call = Callable[[Callable[[], BinaryIO]], BinaryIO]


@dataclass(frozen=True, order=True)
class LogFile:
    """A file of the log.

    Attributes
    ----------
    model, version : str
        Empty for labels.
    day : date
        In UTC: of the answers, or on which the labels came in.
    """

    model: str
    version: str
    day: date
    path: str
    size_bytes: int


@dataclass(frozen=True)
class Index:
    """All files of a log, each list in its order."""

    predictions: tuple[LogFile, ...]
    labels: tuple[LogFile, ...]


def index(tree: Tree) -> Index:
    """Find the files; others are passed over. Raises as `Tree.files` does."""
    predictions, labels = [], []
    for path, size in tree.files():
        # A date that is none isn't ours.
        with contextlib.suppress(ValueError):
            if found := _PREDICTIONS.fullmatch(path):
                predictions.append(LogFile(found[1], found[2], date.fromisoformat(found[3]), path, size))
            elif found := _LABELS.fullmatch(path):
                labels.append(LogFile("", "", date.fromisoformat(found[1]), path, size))
    return Index(tuple(sorted(predictions)), tuple(sorted(labels)))


class Reader:
    """Reads files of a log, some ahead of when they are needed.

    Parameters
    ----------
    tree : Tree
        Where they are.
    done : callable
        Takes the size of each file that was read.
    call : callable
        Opens a file, trying again if need be.
    """

    def __init__(self, tree: Tree, done: Callable[[int], None], call: Call) -> None:
        self._tree = tree
        self._done = done
        self._call = call

    def predictions(self, files: Sequence[LogFile]) -> Iterator[PredictionBatch]:
        """Yield the rows of some files of one version; raises `MuelleError` naming a file that can't be read."""
        yield from self._batches(files, _PREDICTION_COLUMNS, _predictions)

    def labels(self, files: Sequence[LogFile]) -> Iterator[LabelBatch]:
        """Yield the labels of some files; raises as `predictions` does."""
        yield from self._batches(files, _LABEL_COLUMNS, _labels)

    def classes(self, file: LogFile) -> tuple[Scalar, ...] | None:
        """Return the classes that a version predicts, in the order of its probabilities; None for numbers."""
        with _naming(file), self._open(file) as opened:
            metadata = _parquet(opened).schema_arrow.metadata or {}
            found = json.loads(metadata.get(_METADATA_KEY, b"{}"))
            if found.get("format") != _FORMAT:
                raise MuelleError(f"{file.path}: expected a log of format {_FORMAT}, got {found.get('format')!r}")
            return None if found["classes"] is None else tuple(found["classes"])

    def _batches(self, files: Sequence[LogFile], columns: Sequence[str], convert: Callable[[Any], T]) -> Iterator[T]:
        with ThreadPoolExecutor(_THREADS) as pool:
            for file, opened in _ahead(pool, self._open, files):
                with _naming(file), opened:
                    parquet = _parquet(opened)
                    there = [name for name in columns if name in parquet.schema_arrow.names]
                    for batch in parquet.iter_batches(_BATCH_ROWS, columns=there, use_threads=False):
                        yield convert(batch)
                self._done(file.size_bytes)

    def _open(self, file: LogFile) -> BinaryIO:
        return self._call(lambda: self._tree.open(file.path, file.size_bytes))


def _parquet(opened: BinaryIO) -> Any:
    """Return a file that is read by this thread alone.

    Arrow's own threads might still hold a file of Python's when the interpreter ends, and abort the process.
    """
    return pq.ParquetFile(opened, pre_buffer=False)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[LogFile], T], files: Iterable[LogFile]
) -> Iterator[tuple[LogFile, T]]:
    """Yield each file and what the work made of it, in order, at most `_AHEAD` before it is asked for."""
    waiting: deque[tuple[LogFile, Future[T]]] = deque()
    try:
        for file in files:
            waiting.append((file, pool.submit(work, file)))
            if len(waiting) > _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


class _naming:  # noqa: N801  # reads as a function
    """Turns what Arrow says of a file that is damaged, or somebody else's, into an error that names it."""

    def __init__(self, file: LogFile) -> None:
        self._file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        # Arrow raises OSErrors for damaged pages; the others come of columns that are missing, or of another type.
        if isinstance(error, pa.ArrowException | OSError | KeyError | ValueError | TypeError | AttributeError):
            reason = str(error).partition("\n")[0]
            raise MuelleError(f"{self._file.path}: can't be read as a file of the log: {reason}") from error


def _labels(batch: Any) -> LabelBatch:
    return LabelBatch(
        _objects(_whole(batch, "request_id", pa.string())),
        _whole(batch, "row", pa.int64()).to_numpy(zero_copy_only=False),
        _objects(_whole(batch, "label", pa.string())),
        _microseconds(_whole(batch, "observed_at", _TIME)),
    )


def _predictions(batch: Any) -> PredictionBatch:
    names = batch.schema.names
    predicted = probabilities = None
    if "predict" in names and not pa.types.is_list(batch.schema.field("predict").type):
        column = batch.column("predict")
        predicted = _objects(column) if _is_object(column) else column.to_numpy(zero_copy_only=False)
    if "predict_proba" in names:
        probabilities = _lists(batch.column("predict_proba"))
    return PredictionBatch(
        _objects(_whole(batch, "request_id", pa.string())),
        _whole(batch, "row", pa.int64()).to_numpy(zero_copy_only=False),
        _microseconds(_whole(batch, "answered_at", _TIME)),
        predicted,
        probabilities,
    )


def _whole(batch: Any, name: str, kind: Any) -> Any:
    """Return a column of ours, which has a value in each row."""
    column = batch.column(name)
    if column.null_count:
        raise ValueError(f"{name}: expected a value in each row, got null")
    return column.cast(kind)


def _is_object(column: Any) -> bool:
    # Beside a null, numpy would have integers as floats, and from 2**53 on several as the same one.
    integers = bool(pa.types.is_integer(column.type) and column.null_count)
    return integers or bool(pa.types.is_string(column.type) or pa.types.is_boolean(column.type))


def _objects(column: Any) -> Array:
    objects: Array = np.array(column.to_pylist(), dtype=object)
    return objects


def _microseconds(column: Any) -> Array:
    integers: Array = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return integers


def _lists(column: Any) -> Array | None:
    """Return lists of one length as an array of shape (n, length), NaN where there is none."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if not there.any():
        return None
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(int(there.sum()), -1)
    found = np.full((len(column), values.shape[1]), np.nan)
    found[there] = values
    return found
