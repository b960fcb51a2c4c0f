"""The input tensors of an Open Inference Protocol v2 request → validated `Data`.

Rows come as one tensor of shape ``[n, n_features]`` with any name, or as a tensor for each feature, named like it, of
shape ``[n]`` or ``[n, 1]``, in any order. Numbers of any datatype suit a numeric feature that they fit; a BOOL is never
a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from muelle.bundle.data import NUMPY_DTYPES, Array, Data
from muelle.bundle.signature import Feature, Signature
from muelle.errors import InputError
from muelle.inference.predictor import check_matrix
from muelle.inference.rows import shown, to_layout, values_to_column, wrong_count
from service.protocols.binary import binary_tensor
from service.protocols.oip_fields import InputTensor, check_input
from service.protocols.tensors import DATATYPES, Tensor, json_tensor

#: Kinds of numpy dtype that suit a feature's dtype.
_SUITS: Final[Mapping[str, str]] = {"float64": "iuf", "float32": "iuf", "int64": "iuf", "bool": "b", "string": "O"}
_TAKES: Final = {"iuf": "numbers (FP, INT or UINT)", "b": "BOOL", "O": "BYTES"}


def read_inputs(items: object, body: bytes, start: int, signature: Signature, max_rows: int) -> tuple[Data, int]:
    """Validate all tensors.

    Parameters
    ----------
    items : object
        The request's ``inputs``.
    body : bytes
        The request's body.
    start : int
        Where in it the JSON ends and binary tensors begin.
    signature : Signature
        What is allowed.
    max_rows : int
        The largest n_samples.

    Returns
    -------
    data : Data
        In the signature's layout; its arrays are writable and share no memory with the body.
    rows : int
        n_samples.

    Raises
    ------
    InputError
        With the first bad place.
    """
    if type(items) is not list or not items:
        message = f"expected a list of one tensor or more, got {shown(items)}"
        raise InputError(message, code="invalid_shape", where="inputs")
    inputs = [check_input(item, f"inputs[{i}]") for i, item in enumerate(items)]
    whole = _is_whole(inputs, signature)
    if not whole:
        _check_names(inputs, signature)
    rows = _row_count(inputs, max_rows)
    _check_datatypes(inputs, signature, whole)
    tensors = {}
    for item in inputs:
        tensors[item.name], start = _read(item, body, start)
    if start != len(body):
        raise InputError(f"{len(body) - start} bytes are left behind the last tensor", code="invalid_binary")
    if whole:
        return _whole(tensors[inputs[0].name], rows, signature), rows
    return to_layout(signature, {f.name: _column(f, tensors[f.name]) for f in signature.inputs}), rows


def _is_whole(inputs: Sequence[InputTensor], signature: Signature) -> bool:
    """Return whether the request is one tensor with all features; raises when it is one of a wrong shape."""
    first, width = inputs[0], len(signature.inputs)
    if len(inputs) > 1 or (first.shape[1:] in ((), (1,)) and width > 1 and first.name in signature.names):
        return False
    if len(first.shape) == 2 and first.shape[1] != width:
        raise wrong_count(signature, first.shape[1], f"{first.where}.shape")
    if len(first.shape) == 1 and width > 1:
        message = (
            f"expected [rows, {width}], or a tensor for each feature named like it; got {shown(first.name)} "
            f"of shape {list(first.shape)}"
        )
        raise InputError(message, code="invalid_shape", where=f"{first.where}.shape")
    return True


def _check_names(inputs: Sequence[InputTensor], signature: Signature) -> None:
    """Check a request of a tensor a feature: each feature once, nothing else, each of one column."""
    known, seen = set(signature.names), set()
    for item in inputs:
        if item.name not in known:
            raise InputError(f"unknown feature {shown(item.name)}", code="unknown_feature", where=f"{item.where}.name")
        if item.name in seen:
            message = f"the feature {shown(item.name)} came twice"
            raise InputError(message, code="duplicate_name", where=f"{item.where}.name")
        if item.shape[1:] not in ((), (1,)):
            message = f"expected [rows] or [rows, 1] for one feature, got {list(item.shape)}"
            raise InputError(message, code="invalid_shape", where=f"{item.where}.shape")
        seen.add(item.name)
    if missing := [name for name in signature.names if name not in seen]:
        raise InputError(f"missing {', '.join(missing[:40])}", code="missing_feature", where="inputs")


def _row_count(inputs: Sequence[InputTensor], max_rows: int) -> int:
    first = inputs[0]
    rows = first.shape[0]
    if rows == 0:
        raise InputError("expected at least one row, got none", code="empty_batch", where=f"{first.where}.shape")
    if rows > max_rows:
        message = f"expected at most {max_rows} rows, got {shown(rows)}"
        raise InputError(message, code="too_many_rows", where=f"{first.where}.shape")
    for item in inputs:
        if item.shape[0] != rows:
            message = f"expected {rows} rows as {first.where} has, got {shown(item.shape[0])}"
            raise InputError(message, code="shape_mismatch", where=f"{item.where}.shape")
    return rows


def _check_datatypes(inputs: Sequence[InputTensor], signature: Signature, whole: bool) -> None:
    if not whole:
        features = {feature.name: feature for feature in signature.inputs}
        pairs = [(item, features[item.name]) for item in inputs]
    elif signature.layout == "matrix":
        pairs = [(inputs[0], signature.inputs[0])]  # all have its dtype
    else:
        pairs = [(inputs[0], feature) for feature in signature.inputs]
    for item, feature in pairs:
        suits = _SUITS[feature.dtype]
        if DATATYPES[item.datatype].kind not in suits:
            message = f"the feature {shown(feature.name)} takes {_TAKES[suits]}, got {item.datatype}"
            raise InputError(message, code="invalid_value", where=f"{item.where}.datatype")


def _read(item: InputTensor, body: bytes, start: int) -> tuple[Tensor, int]:
    """Return an input's tensor, and where the next one's bytes start."""
    if item.size is None:
        return json_tensor(item.data, item.shape, item.datatype, item.where), start
    left = len(body) - start
    if item.size > left:
        message = f"{shown(item.size)} bytes, but behind the JSON only {left} are left"
        if left == 0:
            message += "; the header Inference-Header-Content-Length says where the JSON ends"
        raise InputError(message, code="invalid_binary", where=f"{item.where}.parameters.binary_data_size")
    tensor = binary_tensor(body, start, item.size, item.shape, item.datatype, item.where)
    return tensor, start + item.size


def _whole(tensor: Tensor, rows: int, signature: Signature) -> Data:
    """Return the data of one tensor with all features."""
    width = len(signature.inputs)
    if signature.layout == "matrix":
        matrix = _easy_matrix(tensor, rows, signature)
        if matrix is not None:
            return matrix
    cells = tensor.cells()
    found = {}
    for i, feature in enumerate(signature.inputs):
        part = tensor.values[i::width]
        easy = _easy_column(feature, part)
        if easy is None:
            easy = values_to_column(feature, cells[i::width], lambda row, i=i: tensor.place(row * width + i))
        found[feature.name] = easy
    return to_layout(signature, found)


def _easy_matrix(tensor: Tensor, rows: int, signature: Signature) -> Array | None:
    """Return the matrix without a look at single cells, or None when something needs one."""
    if tensor.values.dtype.kind == "O" or (
        not signature.plain and any(f.categories is not None for f in signature.inputs)
    ):
        return None
    # One copy, always: binary numbers seldom lie aligned behind the JSON, and some estimators write into their rows.
    matrix = _cast(tensor.values.reshape(rows, -1), NUMPY_DTYPES[signature.inputs[0].dtype])
    try:
        check_matrix(signature, matrix, "")
    except InputError:
        return None  # the look at single cells says which, by its place in the body
    return matrix


def _column(feature: Feature, tensor: Tensor) -> Array:
    column = _easy_column(feature, tensor.values)
    return values_to_column(feature, tensor.cells(), tensor.place) if column is None else column


def _easy_column(feature: Feature, values: Array) -> Array | None:
    """Return a ``(n_samples,)`` column without a look at single cells, or None when something needs one."""
    kind = values.dtype.kind
    if feature.categories is not None or kind == "O":
        return None
    if feature.dtype in ("float64", "float32"):
        column = _cast(values, NUMPY_DTYPES[feature.dtype])
        fine = np.isfinite(column).all() or (feature.nullable and not np.isinf(column).any())
        return column if fine else None
    if kind == "f" or values.dtype == np.uint64:
        return None  # an int64 feature: 6.0 is fine, 6.5 and 2**63 are not
    return values.astype(NUMPY_DTYPES[feature.dtype])


def _cast(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return a copy as float32 or float64; infinite where a number is too large for it."""
    if values.dtype == dtype:
        return values.astype(dtype)
    with np.errstate(over="ignore"):
        return values.astype(dtype)
