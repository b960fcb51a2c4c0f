"""Labels of linear classifiers by one matrix product in numpy, beside the graph that answers probabilities.

In a busy server one row costs about 50 µs in ONNX Runtime and 20 here; for 1,000 rows of 30 it is 130 and 30. The graph
carries what is needed, the matrix and the offset that its own label comes from, in its metadata. An engine that finds
them takes its labels from here always, so the comparison with the estimator and the golden rows prove this way too.
"""

from __future__ import annotations

import json
from typing import Any, Final, Self

import numpy as np

from muelle.bundle.data import NUMPY_DTYPES, Array
from muelle.bundle.fold import only_reader
from muelle.bundle.signature import Output
from muelle.errors import EngineError

#: The key in the graph's metadata.
KEY: Final = "muelle.linear_labels"
#: Larger matrices are left to the graph: what is gained is the cost of a call, and the text would be long.
_LARGEST: Final = 8_192
#: Multiplications in one product. OpenBLAS takes threads for more than twice as many, which would fight the other
#: workers for the cores, and makes 20,000 rows ten times slower where they have to wait for one.
_PRODUCT: Final = 131_072


def note_linear_labels(model: Any, classes: int) -> bool:
    """Note in a graph's metadata what its labels are the largest of, if that is rows @ matrix + offset.

    Parameters
    ----------
    model : onnx.ModelProto
        It is changed in place.
    classes : int
        How many there are.

    Returns
    -------
    bool
        Whether it was; else nothing was changed.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    product = only_reader(graph, graph.input[0].name) if len(graph.input) == 1 else None
    if product is None or product.op_type != "MatMul" or product.input[1] not in constants:
        return False
    total = only_reader(graph, product.output[0])
    if total is None or total.op_type != "Add" or total.input[1] not in constants:
        return False
    choice = [node for node in graph.node if node.op_type == "ArgMax" and node.input[0] == total.output[0]]
    options = [{item.name: helper.get_attribute_value(item) for item in node.attribute} for node in choice]
    if [(found.get("axis"), found.get("select_last_index", 0)) for found in options] != [(1, 0)]:
        return False
    weights = numpy_helper.to_array(constants[product.input[1]])
    offset = numpy_helper.to_array(constants[total.input[1]]).reshape(-1)
    if weights.dtype != np.float64 or weights.size > _LARGEST or (weights.shape[-1], *offset.shape) != (classes,) * 2:
        return False
    helper.set_model_props(model, {KEY: json.dumps({"weights": weights.tolist(), "offset": offset.tolist()})})
    return True


class LinearLabels:
    """The class with the largest of ``rows @ weights + offset``, the first of equals.

    Parameters
    ----------
    weights : array of shape (n_features, n_classes) float64
    offset : array of shape (n_classes,) float64
    classes : array of shape (n_classes,)
        In the dtype of the labels.
    """

    def __init__(self, weights: Array, offset: Array, classes: Array) -> None:
        self._weights = weights
        self._offset = offset
        self._classes = classes
        self._rows = max(1, _PRODUCT // max(1, weights.size))

    @classmethod
    def read(cls, text: str, width: int, output: Output) -> Self:
        """Read a graph's note.

        Parameters
        ----------
        text : str
            What stands in the metadata.
        width : int
            n_features.
        output : Output
            The labels.

        Raises
        ------
        EngineError
            When it is not of this form, or doesn't fit.
        """
        expected = (width, len(output.classes or ()))
        try:
            raw = json.loads(text)
            weights, offset = (np.asarray(raw[key], dtype=np.float64) for key in ("weights", "offset"))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise EngineError(f"model.onnx: {KEY}: expected weights and an offset: {error!r:.200}") from error
        if weights.shape != expected or offset.shape != expected[1:] or not weights.size:
            raise EngineError(f"model.onnx: {KEY}: expected the shape {expected}, got {weights.shape} + {offset.shape}")
        return cls(weights, offset, np.asarray(output.classes, dtype=NUMPY_DTYPES[output.dtype]))

    def __call__(self, rows: Array) -> Array:
        """Return the ``(n_samples,)`` labels of ``(n_samples, n_features)`` float64 rows."""
        if len(rows) <= self._rows:
            return self._labels(rows)
        parts = [self._labels(rows[i : i + self._rows]) for i in range(0, len(rows), self._rows)]
        return np.concatenate(parts)

    def _labels(self, rows: Array) -> Array:
        # Finite rows can add up to more than a float64 holds; the estimator's own sums are infinite then, too.
        with np.errstate(over="ignore", invalid="ignore"):
            scores = rows @ self._weights
            scores += self._offset
            labels: Array = self._classes[scores.argmax(axis=1)]
        return labels
