"""Validated rows on their way into an engine, and what comes out of one.

`Data` is a ``(n_samples, n_features)`` array of the signature's one dtype for the *matrix* layout; for the others a
mapping of column name to a ``(n_samples,)`` array: numeric dtypes as the signature says, object arrays of ``str`` or
None for strings. Integer and boolean columns with missing values come as float64 with NaN and as object with None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import EngineError

Array = NDArray[Any]
Data = Array | Mapping[str, Array]

NUMPY_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "int64": np.dtype(np.int64),
    "bool": np.dtype(np.bool_),
    "string": np.dtype(object),
}


def row_count(data: Data) -> int:
    """Return n_samples."""
    if isinstance(data, np.ndarray):
        return int(data.shape[0])
    return len(next(iter(data.values())))


def take(data: Data, chosen: NDArray[np.intp]) -> Data:
    """Return the chosen rows."""
    if isinstance(data, np.ndarray):
        return data[chosen]
    return {name: column[chosen] for name, column in data.items()}


def missing_mask(column: Array) -> NDArray[np.bool_]:
    """Return which values of a ``(n_samples,)`` column are missing: NaN or None."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    if column.dtype.kind == "O":
        return np.fromiter((value is None for value in column), np.bool_, len(column))
    return np.zeros(len(column), np.bool_)


def columns(signature: Signature, data: Data) -> dict[str, Array]:
    """Return the data as one ``(n_samples,)`` array a feature, whatever the layout."""
    if isinstance(data, np.ndarray):
        return {name: data[:, i] for i, name in enumerate(signature.names)}
    return dict(data)


def rows(signature: Signature, data: Data) -> list[list[Any]]:
    """Return the data as JSON-ready rows; missing values are None."""
    cells = []
    for column in columns(signature, data).values():
        values = column.tolist()
        missing = missing_mask(column)
        cells.append([None if gone else value for value, gone in zip(values, missing, strict=True)])
    return [list(row) for row in zip(*cells, strict=True)]


def column_array(feature: Feature, values: list[Any]) -> Array:
    """Return a column's array from Python values that were checked against the feature; None is missing."""
    if feature.dtype == "string":
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    if None not in values:
        return np.asarray(values, dtype=NUMPY_DTYPES[feature.dtype])
    if feature.dtype == "bool":
        return np.asarray(values, dtype=object)
    dtype = np.float32 if feature.dtype == "float32" else np.float64
    return np.asarray([np.nan if value is None else value for value in values], dtype=dtype)


def normalise(output: Output, value: object, count: int) -> Array:
    """Bring what an engine answered into the signature's dtype and shape.

    Parameters
    ----------
    output : Output
        What the signature promises.
    value : object
        What the engine answered for `count` rows.
    count : int
        n_samples.

    Returns
    -------
    array of shape (n_samples,) or (n_samples, k)
        float64, int64, bool, or object of str; C-contiguous.

    Raises
    ------
    EngineError
        When the shape can't be the promised one.
    """
    array = np.asarray(value)
    shape = (count, *output.shape[1:])
    if array.shape != shape:
        if array.size != np.prod(shape):
            raise EngineError(f"{output.name}: expected the shape {shape}, the model answered {array.shape}")
        array = array.reshape(shape)
    # Some estimators answer column by column; what encodes the answer reads memory row by row.
    return np.ascontiguousarray(array, dtype=NUMPY_DTYPES[output.dtype])


def largest_error(output: Output, expected: Array, actual: Array) -> float:
    """Return how far two answers are apart: 0 when equal, infinity when labels differ.

    For labels (int64, bool, string) any difference is infinite. Probabilities have the scale one, so theirs is the
    largest absolute error. For values it is the largest ``|actual − expected| / |expected|``, with the denominator at
    least a millionth of the largest ``|expected|``, so that a value that happens to be nought doesn't decide.
    """
    if expected.shape != actual.shape:
        return float("inf")
    if expected.size == 0 or output.dtype != "float64":
        return 0.0 if np.array_equal(expected, actual) else float("inf")
    finite = np.isfinite(expected)
    # NaN answers NaN, and each infinity itself.
    if not np.array_equal(finite, np.isfinite(actual)) or not np.array_equal(
        expected[~finite], actual[~finite], equal_nan=True
    ):
        return float("inf")
    difference = np.abs(actual[finite] - expected[finite])
    if difference.size == 0:
        return 0.0
    if output.name == "predict_proba":
        return float(difference.max())
    size = np.abs(expected[finite])
    scale = np.maximum(size, 1e-6 * size.max())
    return float(np.max(difference / np.where(scale == 0, 1.0, scale)))
