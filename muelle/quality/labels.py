"""Labels by the rows that they belong to, found by numbers instead of texts: a million of them take some 100 MB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from muelle.bundle.data import Array

#: In the place of a time that isn't known: after all others, since only a file given by hand says none.
UNKNOWN_TIME: Final = int(np.iinfo(np.int64).max)
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)

Keys = NDArray[np.uint64]


class LabelBatch(NamedTuple):
    """Some labels.

    Attributes
    ----------
    request_ids, rows, labels : arrays of shape (n,)
        Texts, integers, texts.
    observed_at : array of shape (n,) int64
        Microseconds since 1970, or `UNKNOWN_TIME`.
    """

    request_ids: Array
    rows: Array
    labels: Array
    observed_at: NDArray[np.int64]


class Labels:
    """All labels; of several for one row, the one that was observed last.

    Parameters
    ----------
    batches : iterable of LabelBatch
        In any order; of two with the same time the later one counts.
    """

    def __init__(self, batches: Iterable[LabelBatch]) -> None:
        listed = list(batches)
        keys = _joined([keys_of(batch.request_ids, batch.rows) for batch in listed], np.uint64)
        times = _joined([batch.observed_at for batch in listed], np.int64)
        texts = _joined([batch.labels for batch in listed], object)
        order = np.lexsort((times, keys))
        keys = keys[order]
        last = np.ones(len(keys), np.bool_)
        last[:-1] = keys[1:] != keys[:-1]
        self._keys = keys[last]
        #: The labels, as texts; where `find` says.
        self.texts: Array = texts[order][last]
        #: When they were observed, in microseconds since 1970.
        self.observed_at: NDArray[np.int64] = times[order][last]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, keys: Keys) -> NDArray[np.intp]:
        """Return the place of each row's label; -1 where there is none."""
        if not len(self._keys):
            return np.full(len(keys), -1, np.intp)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[places] == keys, places, -1)


def keys_of(request_ids: Array, rows: Array) -> Keys:
    """Return a number of 64 bits for each row of a request.

    Two of ten million rows have the same one with a probability of three in a million.

    Parameters
    ----------
    request_ids : array of shape (n,) object
        Texts.
    rows : array of shape (n,) int
        Which row of the request.
    """
    hashed: Keys = pd.util.hash_array(np.asarray(request_ids, dtype=object))
    with np.errstate(over="ignore"):
        return hashed ^ ((rows.astype(np.uint64) + np.uint64(1)) * _SPREAD)


def _joined(parts: list[Array], dtype: type) -> Array:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
