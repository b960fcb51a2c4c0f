"""The signature of a fitted estimator, from a sample of its rows."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from muelle.bundle.data import Array, Data, column_array
from muelle.bundle.signature import DTYPES, NUMBERS, Feature, Layout, Output, Scalar, Signature
from muelle.errors import EstimatorError

_KINDS: Final = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}


class Sample:
    """Rows as the estimator takes them, and as `Data`.

    Attributes
    ----------
    native : array or DataFrame of shape (n_samples, n_features), or array of shape (n_samples,) for text
        What ``estimator.predict`` is called with.
    layout : str
        How the estimator wants its rows, see `muelle.bundle.signature.LAYOUTS`.
    features : tuple of Feature
        The columns.
    """

    def __init__(
        self,
        estimator: Any,
        rows: Any,
        *,
        dtypes: Mapping[str, str] | None = None,
        allow_missing: bool | None = None,
    ) -> None:
        dtypes = dict(dtypes or {})
        if unknown := sorted(set(dtypes.values()) - set(DTYPES)):
            raise EstimatorError(f"dtypes: expected {', '.join(DTYPES)}, got {', '.join(unknown)}")
        self.native, self.layout = _native(estimator, rows)
        names = _names(estimator, rows, self.native, self.layout)
        if missing := sorted(set(dtypes) - set(names)):
            raise EstimatorError(f"dtypes: the sample has no column {', '.join(missing)}")
        if len(self.native) == 0:
            raise EstimatorError("the sample has no rows")
        if not names or "" in names:
            raise EstimatorError("the sample: expected one or more columns, each with a name")
        columns = self._columns(names)
        self.features = tuple(_feature(name, columns[name], dtypes.get(name), allow_missing) for name in names)
        if self.layout == "matrix":
            if odd := sorted(name for name, dtype in dtypes.items() if dtype not in NUMBERS):
                raise EstimatorError(f"dtypes: the sample has numbers in column {', '.join(odd)}; convert it first")
            self.features = _one_dtype(self.features, self.native)

    def data(self) -> Data:
        """Return the rows as `Data`."""
        if self.layout == "matrix":
            return np.ascontiguousarray(np.asarray(self.native), dtype=self.features[0].dtype)
        columns = self._columns([feature.name for feature in self.features])
        return {f.name: column_array(f, _values(columns[f.name], f)) for f in self.features}

    def _columns(self, names: list[str]) -> dict[str, Any]:
        if self.layout == "text":
            return {names[0]: self.native}
        if isinstance(self.native, np.ndarray):
            return {name: self.native[:, i] for i, name in enumerate(names)}
        return {name: self.native.iloc[:, i] for i, name in enumerate(names)}


def infer_outputs(estimator: Any, native: Any) -> tuple[tuple[Output, ...], dict[str, Array]]:
    """Run the estimator on a sample: what it answers is what it promises.

    Parameters
    ----------
    estimator : object
        Fitted, with ``predict``.
    native : array-like
        The sample, see `Sample.native`.

    Returns
    -------
    outputs : tuple of Output
        ``predict``, and ``predict_proba`` for a single-output classifier that has it.
    answers : dict
        Output name to its array, in the output's dtype.

    Raises
    ------
    EstimatorError
        When it has no ``predict``, is not fitted, or answers what a signature can't express.
    """
    predict = getattr(estimator, "predict", None)
    if not callable(predict):
        raise EstimatorError(f"expected a fitted estimator with predict, got {type(estimator).__name__}")
    try:
        predicted = np.asarray(predict(native))
    except Exception as error:
        raise EstimatorError(f"{type(estimator).__name__}.predict fails on the sample: {error}") from error
    if predicted.ndim not in (1, 2) or len(predicted) != len(native):
        raise EstimatorError(f"predict: expected one answer a row, got the shape {predicted.shape}")
    classes = _classes(estimator)
    dtype, predicted = _answer_dtype(predicted)
    outputs = [Output("predict", dtype, (-1, *predicted.shape[1:]), classes)]
    answers = {"predict": predicted}
    if classes is not None and callable(getattr(estimator, "predict_proba", None)):
        try:
            probabilities = np.asarray(estimator.predict_proba(native), dtype=np.float64)
        except Exception as error:
            raise EstimatorError(f"{type(estimator).__name__}.predict_proba fails on the sample: {error}") from error
        if probabilities.shape == (len(native), len(classes)):
            outputs.append(Output("predict_proba", "float64", (-1, len(classes)), classes))
            answers["predict_proba"] = probabilities
    return tuple(outputs), answers


def make_signature(sample: Sample, outputs: tuple[Output, ...]) -> Signature:
    """Put inputs and outputs together."""
    return Signature(layout=sample.layout, inputs=sample.features, outputs=outputs)


def _native(estimator: Any, rows: Any) -> tuple[Any, Layout]:
    """Return the rows as the estimator takes them, and which layout that is."""
    if hasattr(rows, "iloc") and hasattr(rows, "columns"):
        return _native_frame(estimator, rows)
    if hasattr(rows, "iloc"):  # a Series
        rows = rows.to_numpy()
    if hasattr(rows, "toarray"):  # a sparse matrix: served rows are dense
        rows = rows.toarray()
    try:
        array = np.asarray(rows)
        if array.ndim == 2 and array.dtype.kind in "US" and not hasattr(rows, "dtype"):
            # numpy made text of the numbers in a list of mixed rows.
            array = np.asarray(rows, dtype=object)
    except ValueError as error:
        raise EstimatorError(f"the sample: expected rows of shape (n_samples, n_features): {error}") from error
    if array.ndim == 1 and (array.dtype.kind in "US" or all(isinstance(value, str) for value in array)):
        return array.astype(object), "text"
    if array.ndim != 2:
        raise EstimatorError(f"the sample: expected rows of shape (n_samples, n_features), got the shape {array.shape}")
    if array.dtype.kind in "fiu":
        return (array if array.dtype == np.float32 else array.astype(np.float64)), "matrix"
    return array.astype(object), "objects"


def _native_frame(estimator: Any, frame: Any) -> tuple[Any, Layout]:
    """Prefer a numeric matrix where the estimator answers the same for one: that is the fast path."""
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise EstimatorError("the sample: two columns have the same name")
    if all(_is_plain_number(frame.iloc[:, i].dtype) for i in range(frame.shape[1])):
        if not hasattr(estimator, "feature_names_in_"):
            # Fitted on an array, so it gets one: of a DataFrame it would warn, or be unable to slice it.
            matrix = frame.to_numpy(np.float64)
            with contextlib.suppress(Exception):  # one that picks its columns by name keeps no names either
                estimator.predict(matrix)
                return matrix, "matrix"
        as_float = frame.astype(np.float64)
        try:
            if np.array_equal(np.asarray(estimator.predict(frame)), np.asarray(estimator.predict(as_float))):
                return as_float, "matrix"
        except Exception as error:
            raise EstimatorError(f"{type(estimator).__name__}.predict fails on the sample: {error}") from error
    elif not hasattr(estimator, "feature_names_in_") and _wants_array(estimator, frame):
        return frame.to_numpy(object), "objects"
    return frame, "frame"


def _wants_array(estimator: Any, frame: Any) -> bool:
    """Whether an estimator that knows no names was fitted on an array of objects rather than on a DataFrame."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.predict(frame)
        except Exception:  # noqa: BLE001  # whatever it raises, the other form remains to be tried
            with contextlib.suppress(Exception):
                estimator.predict(frame.to_numpy(object))
                return True
            return False
    return any("fitted without feature names" in str(warning.message) for warning in caught)


def _is_plain_number(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "fiu"


def _names(estimator: Any, rows: Any, native: Any, layout: Layout) -> list[str]:
    if hasattr(rows, "iloc") and hasattr(rows, "columns"):
        return [str(name) for name in rows.columns]
    if layout == "text":
        return ["text"]
    fitted = getattr(estimator, "feature_names_in_", None)
    if fitted is not None and len(fitted) == native.shape[1]:
        return [str(name) for name in fitted]
    return [f"x{i}" for i in range(native.shape[1])]


def _feature(name: str, column: Any, dtype: str | None, allow_missing: bool | None) -> Feature:
    """Infer one column's feature."""
    found, categories, has_missing = _inspect(name, column)
    nullable = has_missing if allow_missing is None else (allow_missing or has_missing)
    return Feature(name=name, dtype=dtype or found, nullable=nullable, categories=categories)


def _inspect(name: str, column: Any) -> tuple[str, tuple[Scalar, ...] | None, bool]:
    """Return a column's dtype, its declared categories, and whether it has missing values."""
    if isinstance(column, np.ndarray) and column.dtype.kind in _KINDS:
        has_missing = bool(column.dtype.kind == "f" and np.isnan(column).any())
        return ("float32" if column.dtype == np.float32 else _KINDS[column.dtype.kind]), None, has_missing
    values = _python_values(column)
    present = [value for value in values if value is not None]
    has_missing = len(present) < len(values)
    declared = getattr(getattr(column, "dtype", None), "categories", None)
    if declared is not None:
        present = declared.tolist()
    kinds = {_kind(value) for value in present}
    if kinds == {"int64", "float64"}:
        kinds = {"float64"}
    if kinds == {"float64"} and str(getattr(column, "dtype", "")) == "float32":
        kinds = {"float32"}
    if len(kinds) != 1 or None in kinds:
        seen = sorted({type(value).__name__ for value in present}) or ["only missing values"]
        raise EstimatorError(f"column {name!r}: expected numbers, booleans or strings, got {', '.join(seen)}")
    return str(kinds.pop()), (None if declared is None else tuple(present)), has_missing


def _kind(value: object) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "float64"
    return "string" if isinstance(value, str) else None


def _python_values(column: Any) -> list[Any]:
    """Return a column's values as Python scalars, with None for each kind of missing value."""
    values = column.tolist()
    return [None if _is_missing(value) else value for value in values]


def _is_missing(value: Any) -> bool:
    # pandas.NA by name: it answers any comparison with itself.
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and math.isnan(value))
    )


def _values(column: Any, feature: Feature) -> list[Any]:
    return [None if value is None else _as_dtype(value, feature) for value in _python_values(column)]


def _as_dtype(value: Any, feature: Feature) -> Any:
    """Return a value in a feature's dtype; only numbers become other numbers, and none changes its value."""
    kind = _kind(value)
    if feature.dtype in ("float64", "float32") and kind in ("float64", "int64"):
        return float(value)
    if feature.dtype == "int64" and kind == "float64" and value.is_integer():
        return int(value)
    if kind != feature.dtype:
        raise EstimatorError(f"column {feature.name!r}: expected values of dtype {feature.dtype}, got {value!r}")
    return value


def _one_dtype(features: tuple[Feature, ...], native: Any) -> tuple[Feature, ...]:
    """Give all columns the one dtype of a matrix: float32 when the sample was, else float64."""
    single = isinstance(native, np.ndarray) and native.dtype == np.float32
    dtype = "float32" if single else "float64"
    return tuple(Feature(feature.name, dtype, feature.nullable) for feature in features)


def _classes(estimator: Any) -> tuple[Scalar, ...] | None:
    """Return the class labels of a single-output classifier, else None."""
    try:
        classes = estimator.classes_
    except AttributeError:
        return None
    if isinstance(classes, list) or np.ndim(classes) != 1:
        return None
    _, labels = _answer_dtype(np.asarray(classes))
    return tuple(labels.tolist())


def _answer_dtype(array: Array) -> tuple[str, Array]:
    """Return the signature's dtype for an answer, and the answer in it."""
    kind = array.dtype.kind
    if kind in "iu":
        return "int64", array.astype(np.int64)
    if kind == "f":
        return "float64", array.astype(np.float64)
    if kind == "b":
        return "bool", array
    if kind == "U":
        return "string", array.astype(object)
    kinds = {_kind(value) for value in array.ravel().tolist()}
    if kinds == {"int64"}:
        return "int64", array.astype(np.int64)
    if kinds == {"bool"}:
        return "bool", array.astype(np.bool_)
    if kinds <= {"float64", "int64"} and kinds:
        return "float64", array.astype(np.float64)
    if kinds == {"string"}:
        return "string", array
    found = sorted({type(value).__name__ for value in array.ravel().tolist()})
    raise EstimatorError(f"predict: expected numbers, booleans or strings, got {', '.join(found)}")
