"""Bodies of the Open Inference Protocol v2, written without Muelle's own code, and models to send them to."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from muelle.bundle.data import Array
from muelle.bundle.signature import Feature, Layout, Output, Signature
from muelle.errors import InputError
from service.protocols.oip import InferRequest, decode

PREDICT = Output("predict", "int64", (-1,), (0, 1))
PROBABILITIES = Output("predict_proba", "float64", (-1, 2), (0, 1))


def matrix(dtype: str = "float64", width: int = 3, nullable: tuple[int, ...] = ()) -> Signature:
    features = tuple(Feature(f"x{i}", dtype, nullable=i in nullable) for i in range(width))
    return Signature("matrix", features, (PREDICT, PROBABILITIES))


def columns(*features: Feature, layout: Layout = "frame") -> Signature:
    return Signature(layout, features, (PREDICT, PROBABILITIES))


MATRIX = matrix()
FRAME = columns(
    Feature("age", "int64"),
    Feature("weight", "float64", nullable=True),
    Feature("height", "float32"),
    Feature("smoker", "bool", nullable=True),
    Feature("colour", "string", nullable=True, categories=("red", "green")),
)
NUMBERS = columns(Feature("a", "int64"), Feature("b", "float64"))
TEXT = columns(Feature("text", "string"), layout="text")
SIGNATURES = (MATRIX, matrix("float32", nullable=(1,)), FRAME, NUMBERS, TEXT)

CODES = {"BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H"}
CODES |= {"UINT32": "I", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d"}


def written(values: list[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
    return struct.pack(f"<{len(values)}{CODES[datatype]}", *values)


def tensor(name: str, shape: list[Any], datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


def features(**changes: Any) -> dict[str, Any]:
    """Return a good tensor for `MATRIX` with changes; None takes a field away."""
    item = tensor("features", [2, 3], "FP64", [1, 2, 3, 4, 5, 6]) | changes
    return {key: value for key, value in item.items() if value is not None}


def read(document: Any, signature: Signature = MATRIX, max_rows: int = 100) -> InferRequest:
    return decode(json.dumps(document).encode(), None, signature, max_rows)


def read_binary(
    inputs: list[dict[str, Any]],
    tail: bytes,
    signature: Signature = MATRIX,
    header_length: str | None = "right",
    **more: Any,
) -> InferRequest:
    header = json.dumps({"inputs": inputs, **more}).encode()
    return decode(header + tail, str(len(header)) if header_length == "right" else header_length, signature, 100)


def binary_input(size: Any, shape: tuple[int, ...] = (2, 3), datatype: str = "FP64", name: str = "x") -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": size}}


def refused(document: Any, signature: Signature = MATRIX, max_rows: int = 100) -> InputError:
    with pytest.raises(InputError) as caught:
        read(document, signature, max_rows)
    return caught.value


def matrix_of(request: InferRequest) -> Array:
    assert isinstance(request.data, np.ndarray)
    return request.data


def columns_of(request: InferRequest) -> Mapping[str, Array]:
    assert not isinstance(request.data, np.ndarray)
    return request.data


SIX = struct.pack("<6d", 1, 2, 3, 4, 5, 6)
