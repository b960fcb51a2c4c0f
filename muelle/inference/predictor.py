"""A verified, loaded model, for in-process use and for the service alike."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from muelle.bundle.data import NUMPY_DTYPES, Array, Data
from muelle.bundle.engines import Engine, load_engine
from muelle.bundle.golden import check_golden
from muelle.bundle.manifest import ENGINE_FILES, Manifest
from muelle.bundle.reader import Bundle, open_bundle
from muelle.bundle.signature import Signature
from muelle.bundle.skew import check_skew
from muelle.errors import EngineError, InputError
from muelle.inference.rows import rows_to_data, to_layout, values_to_column, wrong_count

_log = logging.getLogger(__name__)


class Predictor:
    """One version of one model, ready to answer.

    >>> predictor = Predictor.load("models/iris/1")
    >>> predictor.predict([[5.1, 3.5, 1.4, 0.2]])
    array([0])

    Attributes
    ----------
    manifest : Manifest
        What the bundle says of itself.
    signature : Signature
        The manifest's signature.
    digest : str
        The bundle's digest, ``sha256:…``.
    engine : str
        ``onnx``, ``joblib`` or ``skops``.
    warnings : tuple of str
        Such as a patch release that differs from the manifest's.
    load_seconds : float
        How long verifying, loading and checking took.
    """

    def __init__(self, bundle: Bundle, engine: Engine, warnings: Sequence[str] = (), load_seconds: float = 0.0) -> None:
        self.manifest: Manifest = bundle.manifest
        self.signature: Signature = bundle.manifest.signature
        self.profile = bundle.profile
        self.digest = bundle.digest
        self.engine = engine.name
        self.warnings = tuple(warnings)
        self.load_seconds = load_seconds
        #: Answers validated `Data`: ``run(data, output_names)``; raises as `muelle.bundle.engines.Engine.run`.
        self.run = engine.run

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, engine: str = "auto", allowed_modules: Sequence[str] = ()
    ) -> Predictor:
        """Verify a bundle, load it, and reproduce its golden outputs, which also warms it up.

        Parameters
        ----------
        path : path
            The bundle's folder.
        engine : {"auto", "onnx", "joblib", "skops"}
            ``auto`` takes the first that the bundle has; ONNX comes first.
        allowed_modules : sequence of str
            Modules, besides the built-in allow-list, that an estimator may come from.

        Raises
        ------
        BundleError
            Any of its kinds: not verified, not safe, libraries too different, not loadable, not reproducing.
        """
        started = time.perf_counter()
        bundle = open_bundle(path)
        name = choose_engine(bundle.manifest, engine)
        warnings = check_skew(bundle.manifest.libraries, name)
        for warning in warnings:
            _log.warning("%s %s: %s", bundle.manifest.name, bundle.manifest.version, warning)
        loaded = load_engine(name, bundle.read(ENGINE_FILES[name]), bundle.manifest.signature, allowed_modules)
        check_golden(bundle.manifest.signature, bundle.golden, loaded)
        return cls(bundle, loaded, warnings, time.perf_counter() - started)

    def predict(self, rows: Any) -> Array:
        """Answer rows.

        Parameters
        ----------
        rows : array-like of shape (n_samples, n_features), DataFrame, sequence of dicts, or of str for a model of texts
            A DataFrame or dicts are matched by name.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_outputs)
            float64, int64, bool, or object of str.

        Raises
        ------
        InputError
            When a row is not what the signature allows.
        """
        return self.run(self.to_data(rows), ("predict",))["predict"]

    def predict_proba(self, rows: Any) -> Array:
        """Answer rows with class probabilities.

        Parameters
        ----------
        rows : as for `predict`

        Returns
        -------
        array of shape (n_samples, n_classes) float64
            Columns in the order of ``signature.output("predict_proba").classes``.

        Raises
        ------
        InputError
            When a row is not what the signature allows, or the model has no probabilities.
        """
        if "predict_proba" not in self.signature.output_names:
            raise InputError("this model has no probabilities", code="unknown_output")
        return self.run(self.to_data(rows), ("predict_proba",))["predict_proba"]

    def to_data(self, rows: Any) -> Data:
        """Validate rows of any accepted kind; raises `InputError`."""
        if hasattr(rows, "columns") and hasattr(rows, "iloc"):
            return self._from_frame(rows)
        if isinstance(rows, np.ndarray):
            return self._from_array(rows)
        plain = [_plain_row(row) for row in rows]
        if self.signature.layout == "text":
            plain = [[row] if isinstance(row, str) else row for row in plain]
        return rows_to_data(self.signature, plain, "rows")

    def _from_frame(self, frame: Any) -> Data:
        names = [str(name) for name in frame.columns]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"the column {twice} stands there twice", code="duplicate_name", where="rows")
        if missing := [name for name in self.signature.names if name not in names]:
            raise InputError(f"missing {', '.join(missing)}", code="missing_feature", where="rows")
        if unknown := [name for name in names if name not in self.signature.names]:
            raise InputError(f"unknown feature {', '.join(unknown)}", code="unknown_feature", where="rows")
        if not len(frame):
            raise InputError("expected at least one row, got none", code="empty_batch", where="rows")
        found = {}
        for feature in self.signature.inputs:
            column = frame.iloc[:, names.index(feature.name)]
            values = column.astype(object).where(column.notna(), None).tolist()
            found[feature.name] = values_to_column(feature, values, lambda row, f=feature: f"rows[{row}].{f.name}")
        return to_layout(self.signature, found)

    def _from_array(self, array: Array) -> Data:
        width = len(self.signature.inputs)
        if array.ndim == 1 and self.signature.layout == "text":
            array = array.reshape(-1, 1)
        if array.ndim != 2:
            message = f"expected the shape (n_samples, {width}), got {array.shape}"
            raise InputError(message, code="invalid_shape", where="rows")
        if array.shape[1] != width:
            raise wrong_count(self.signature, array.shape[1], "rows")
        if array.dtype.kind not in "fiu" or self.signature.layout != "matrix" or not len(array):
            return rows_to_data(self.signature, array.tolist(), "rows")
        with np.errstate(over="ignore"):  # a number too large for float32 is seen next
            matrix = array.astype(NUMPY_DTYPES[self.signature.inputs[0].dtype], copy=False)
        check_matrix(self.signature, matrix, "rows")
        return matrix


def _plain_row(row: Any) -> Any:
    """Return a row of an array-like, which may be a tuple or of numpy's scalars, as a JSON parser would."""
    if isinstance(row, np.ndarray | np.generic):
        return row.tolist()
    if isinstance(row, list | tuple):
        return [cell.item() if isinstance(cell, np.generic) else cell for cell in row]
    if isinstance(row, Mapping):
        return {name: cell.item() if isinstance(cell, np.generic) else cell for name, cell in row.items()}
    return row


def check_matrix(signature: Signature, matrix: Array, where: str) -> None:
    """Check the values of a ``(n_samples, n_features)`` matrix that has the right shape and a float dtype.

    Raises
    ------
    InputError
        At the first value that is infinite, or NaN in a column that may not miss one.
    """
    if np.isfinite(matrix).all():
        return
    nullable = np.array([feature.nullable for feature in signature.inputs])
    bad = np.isinf(matrix) | (np.isnan(matrix) & ~nullable)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        got = "NaN" if np.isnan(matrix[row, column]) else "a number that is not finite"
        message = f"expected a number, got {got}"
        raise InputError(message, code="invalid_value", where=f"{where}[{row}][{column}]")


def choose_engine(manifest: Manifest, wanted: str) -> str:
    """Return the engine to load; raises `EngineError` when the bundle doesn't have the wanted one."""
    if wanted == "auto":
        return manifest.engines[0]
    if wanted not in manifest.engines:
        raise EngineError(f"the engine {wanted} is not in the bundle, which has {', '.join(manifest.engines)}")
    return wanted
