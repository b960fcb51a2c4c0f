"""Folding a scaler into the linear layer behind it: one matrix product instead of two passes over all values before it.

A linear model on scaled rows, ``((x - m) / s) W + b``, is the linear model ``x (W / s) + (b - (m / s) W)`` on the rows
themselves. ONNX Runtime doesn't see that, and for many rows the two element-wise passes cost more than the product.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from muelle.bundle.data import Array

#: Element-wise operators that keep ``x · scale + shift`` in that form.
_AFFINE: Final = ("Sub", "Add", "Div", "Mul")


def fold_scaling(model: Any) -> Any | None:
    """Fold a leading scaling into the first matrix product.

    Parameters
    ----------
    model : onnx.ModelProto
        It is changed in place.

    Returns
    -------
    onnx.ModelProto or None
        None when the graph has no such form; nothing was changed then.
    """
    from onnx import numpy_helper

    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    if len(graph.input) != 1:
        return None
    name = graph.input[0].name
    scale: Array = np.ones(1)
    shift: Array = np.zeros(1)
    folded = []
    while (node := only_reader(graph, name)) is not None and node.op_type in _AFFINE:
        if node.input[0] != name or node.input[1] not in constants:
            return None
        value = constants[node.input[1]].astype(np.float64).reshape(-1)
        scale, shift = _compose(node.op_type, scale, shift, value)
        folded.append(node)
        name = node.output[0]
    if not folded or node is None or node.op_type != "MatMul" or node.input[1] not in constants:
        return None
    weights = constants[node.input[1]]
    bias = only_reader(graph, node.output[0])
    if bias is None or bias.op_type != "Add" or bias.input[0] != node.output[0] or bias.input[1] not in constants:
        return None
    offset = constants[bias.input[1]]
    rows = weights.astype(np.float64)
    _set(graph, node, scale.reshape(-1, 1) * rows, weights.dtype)
    _set(graph, bias, offset + (np.broadcast_to(shift, len(rows)) @ rows), offset.dtype)
    node.input[0] = graph.input[0].name
    for done in folded:
        graph.node.remove(done)
    used = {item for remaining in graph.node for item in remaining.input}
    for initializer in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(initializer)
    return model


def _compose(operator: str, scale: Array, shift: Array, value: Array) -> tuple[Array, Array]:
    """Return scale and shift after one more element-wise operator."""
    if operator == "Sub":
        return scale, shift - value
    if operator == "Add":
        return scale, shift + value
    if operator == "Div":
        return scale / value, shift / value
    return scale * value, shift * value


def only_reader(graph: Any, name: str) -> Any | None:
    """Return the one node that reads a value; None when none or several do, or when it is an output of the graph."""
    readers = [node for node in graph.node if name in node.input]
    return readers[0] if len(readers) == 1 and all(output.name != name for output in graph.output) else None


def _set(graph: Any, node: Any, value: Array, dtype: Any) -> None:
    """Give a node a constant of its own as its second input."""
    from onnx import numpy_helper

    name = f"{node.output[0]}_folded"
    graph.initializer.append(numpy_helper.from_array(value.astype(dtype), name))
    node.input[1] = name
