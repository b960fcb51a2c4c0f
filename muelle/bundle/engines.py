"""One loader a format: verified bytes become something that answers rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from muelle.bundle.data import Array, Data, missing_mask, normalise, row_count
from muelle.bundle.linear import KEY, LinearLabels
from muelle.bundle.manifest import ENGINE_FILES
from muelle.bundle.signature import Signature
from muelle.errors import EngineError, InputError


class Engine(Protocol):
    """A loaded model in one format."""

    @property
    def name(self) -> str:
        """``onnx``, ``joblib`` or ``skops``."""

    def run(self, data: Data, outputs: Sequence[str]) -> dict[str, Array]:
        """Answer validated rows.

        Parameters
        ----------
        data : Data
            See `muelle.bundle.data`.
        outputs : sequence of str
            Names of the signature's outputs.

        Returns
        -------
        dict
            Output name to an array of the signature's dtype and shape.

        Raises
        ------
        InputError
            When the estimator refuses values that the signature allows (code ``rejected_by_estimator``).
        EngineError
            When the model fails.
        """


class EstimatorEngine:
    """An unpickled scikit-learn estimator."""

    def __init__(self, name: str, estimator: Any, signature: Signature) -> None:
        self.name = name
        self.estimator = estimator
        self._signature = signature
        self._outputs = {output.name: output for output in signature.outputs}
        for output in signature.output_names:
            if not hasattr(estimator, output):
                raise EngineError(f"{ENGINE_FILES[name]}: the loaded {type(estimator).__name__} has no {output}")
        # An estimator that was fitted on a DataFrame warns about, or can't use, rows without names.
        self._named = signature.layout == "frame" or (
            signature.layout == "matrix" and hasattr(estimator, "feature_names_in_")
        )

    def run(self, data: Data, outputs: Sequence[str]) -> dict[str, Array]:
        """See `Engine.run`."""
        count = row_count(data)
        rows = self._rows(data)
        answers = {}
        for name in outputs:
            try:
                value = getattr(self.estimator, name)(rows)
            except ValueError as error:
                # The rows passed the signature and the golden rows run, so the estimator dislikes these values:
                # a category that an encoder never saw, say.
                reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else "ValueError"
                raise InputError(f"the estimator refused these rows: {reason}", code="rejected_by_estimator") from error
            except Exception as error:
                raise EngineError(f"the estimator failed: {type(error).__name__}: {error}") from error
            answers[name] = normalise(self._outputs[name], value, count)
        return answers

    def _rows(self, data: Data) -> Any:
        if isinstance(data, np.ndarray):
            return _frame_of_matrix(data, self._signature) if self._named else data
        if self._signature.layout == "text":
            return next(iter(data.values()))
        if self._signature.layout == "objects":
            return np.column_stack([column.astype(object) for column in data.values()])
        return _frame(data, self._signature)


class OnnxEngine:
    """An ONNX graph in ONNX Runtime, one thread a call: the workers are what scales."""

    name: Final = "onnx"

    def __init__(self, model: bytes, signature: Signature) -> None:
        # Its official builds send telemetry to Microsoft; what users compute is nobody else's business.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # No threads of its own: they would fight the other workers for the cores, and would not survive a fork.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common root
            raise EngineError(f"model.onnx: ONNX Runtime can't load it: {str(error)[:300]}") from error
        found = [output.name for output in self._session.get_outputs()]
        if len(found) < len(signature.outputs):
            raise EngineError(f"model.onnx: expected {len(signature.outputs)} outputs, the graph has {len(found)}")
        self._outputs = {
            output.name: (output, graph_name) for output, graph_name in zip(signature.outputs, found, strict=False)
        }
        inputs = self._session.get_inputs()
        self._matrix: str = inputs[0].name
        dtypes = {
            "tensor(double)": np.float64,
            "tensor(float)": np.float32,
            "tensor(int64)": np.int64,
            "tensor(bool)": np.bool_,
        }
        self._dtypes = {item.name: np.dtype(dtypes.get(item.type, object)) for item in inputs}
        self._columns = dict(zip((item.name for item in inputs), signature.names, strict=False))
        note = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self._labels = (
            None if note is None else LinearLabels.read(note, len(signature.inputs), signature.output("predict"))
        )

    def run(self, data: Data, outputs: Sequence[str]) -> dict[str, Array]:
        """See `Engine.run`."""
        answers: dict[str, Array] = {}
        if self._labels is not None and "predict" in outputs and isinstance(data, np.ndarray):
            answers["predict"] = self._labels(data)
            if len(outputs) == 1:
                return answers
        chosen = [self._outputs[name] for name in outputs if name not in answers]
        feed = self._feed(data)
        try:
            values = self._session.run([graph_name for _, graph_name in chosen], feed)
        except Exception as error:  # ONNX Runtime's errors have no common root
            raise EngineError(f"ONNX Runtime failed: {str(error)[:300]}") from error
        count = row_count(data)
        for (output, _), value in zip(chosen, values, strict=True):
            if output.name == "predict_proba" and value.dtype == np.float32:
                # The sum of a hundred votes in float32 can end a hair above one.
                value = np.minimum(value, 1)  # noqa: PLW2901
            answers[output.name] = normalise(output, value, count)
        return answers

    def _feed(self, data: Data) -> Mapping[str, Array]:
        if isinstance(data, np.ndarray):
            return {self._matrix: _cast(data, self._dtypes[self._matrix])}
        feed = {}
        for graph_name, name in self._columns.items():
            column = data[name]
            if self._dtypes[graph_name].kind == "O":
                # ONNX has no missing string; the converter's imputers expect the empty one.
                column = np.asarray(["" if value is None else value for value in column], dtype=object)
            feed[graph_name] = _cast(column, self._dtypes[graph_name]).reshape(-1, 1)
        return feed


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Bring an array into a graph's dtype; what float32 can't hold is refused, as scikit-learn's trees refuse it."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if dtype == np.float32 and np.isinf(cast).any():
        message = f"the model computes in float32, and a value is beyond {np.finfo(np.float32).max:.3g}"
        raise InputError(message, code="rejected_by_estimator")
    return cast


def load_engine(name: str, data: bytes, signature: Signature, allowed_modules: Sequence[str] = ()) -> Engine:
    """Turn the verified bytes of an engine's file into an engine.

    Parameters
    ----------
    name : str
        ``onnx``, ``joblib`` or ``skops``.
    data : bytes
        The whole file, its digest checked.
    signature : Signature
        What it must answer.
    allowed_modules : sequence of str
        Modules, besides the built-in allow-list, that an estimator may come from.

    Raises
    ------
    UnsafePickleError
        When the file asks for more than is allowed; nothing of it was called.
    EngineError
        When it can't be loaded.
    """
    if name == "onnx":
        return OnnxEngine(data, signature)
    return EstimatorEngine(name, _LOADERS[name](data, ENGINE_FILES[name], allowed_modules), signature)


def _load_pickle(data: bytes, where: str, allowed_modules: Sequence[str]) -> Any:
    from muelle.bundle.pickles import load_pickle

    return load_pickle(data, where, allowed_modules)


def _load_skops(data: bytes, where: str, allowed_modules: Sequence[str]) -> Any:
    from muelle.bundle.skops_files import load_skops

    return load_skops(data, where, allowed_modules)


_LOADERS: Final[Mapping[str, Callable[[bytes, str, Sequence[str]], Any]]] = {
    "joblib": _load_pickle,
    "skops": _load_skops,
}


def _frame_of_matrix(matrix: Array, signature: Signature) -> Any:
    import pandas as pd

    return pd.DataFrame(matrix, columns=list(signature.names), copy=False)


def _frame(data: Mapping[str, Array], signature: Signature) -> Any:
    import pandas as pd

    table = {}
    for feature in signature.inputs:
        column = data[feature.name]
        if feature.categories is not None:
            table[feature.name] = pd.Series(pd.Categorical(column, categories=list(feature.categories)))
        elif feature.dtype == "string":
            table[feature.name] = _text_series(column)
        else:
            table[feature.name] = pd.Series(column)
    return pd.DataFrame(table)


def _text_series(column: Array) -> Any:
    """Return strings as pandas reads them from a file, NaN for missing, whatever else the column holds."""
    import pandas as pd

    # "str" from pandas 3 on, before that object. Left to find it out, pandas makes None of a column of missing ones.
    dtype = pd.Series([""]).dtype
    return pd.Series(np.where(missing_mask(column), np.nan, column), dtype=dtype)
