"""Generated requests of the Open Inference Protocol v2: written ones are read, and no body gives more than an error."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oip_bodies import (
    CODES,
    FRAME,
    MATRIX,
    SIGNATURES,
    SIX,
    binary_input,
    columns_of,
    features,
    matrix,
    matrix_of,
    read,
    read_binary,
    tensor,
    written,
)

from muelle.bundle.signature import Signature
from muelle.errors import InputError
from service.protocols.oip import decode, encode

FITS = {
    "age": ("INT8", "UINT8", "INT16", "INT32", "INT64", "UINT64", "FP16", "FP64"),
    "weight": ("FP16", "FP32", "FP64", "INT32", "UINT16"),
    "height": ("FP16", "FP32", "FP64", "INT8", "UINT32"),
    "smoker": ("BOOL",),
    "colour": ("BYTES",),
}


def values_for(name: str, datatype: str) -> st.SearchStrategy[Any]:
    if name == "smoker":
        return st.booleans()
    if name == "colour":
        return st.sampled_from(["red", "green"])
    if name != "age" and datatype.startswith("FP"):
        return st.floats(-1000, 1000, width=16)
    return st.integers(0, 100)


@settings(max_examples=400)
@given(data=st.data())
def test_columns_that_were_written_are_read(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 6))
    inputs, tail, expected = [], b"", {}
    for name in data.draw(st.permutations(FRAME.names)):
        datatype = data.draw(st.sampled_from(FITS[name]))
        values = data.draw(st.lists(values_for(name, datatype), min_size=rows, max_size=rows))
        shape = data.draw(st.sampled_from([[rows], [rows, 1]]))
        expected[name] = values
        if data.draw(st.booleans()):
            octets = written(values, datatype)
            inputs.append(binary_input(len(octets), tuple(shape), datatype, name))
            tail += octets
            continue
        if name in ("weight", "smoker", "colour") and data.draw(st.booleans()):
            expected[name] = values = [None, *values[1:]]
        nested = len(shape) == 2 and data.draw(st.booleans())
        inputs.append(tensor(name, shape, datatype, [[value] for value in values] if nested else values))
    request = read_binary(inputs, tail, FRAME)
    assert request.rows == rows
    for name, column in columns_of(request).items():
        got = [None if value != value else value for value in column.tolist()]
        assert got == expected[name], name


@settings(max_examples=400)
@given(
    data=st.data(),
    rows=st.integers(1, 8),
    width=st.integers(1, 5),
    datatype=st.sampled_from(sorted(set(CODES) - {"BOOL"})),
    dtype=st.sampled_from(["float64", "float32"]),
    form=st.sampled_from(["flat", "nested", "binary"]),
)
def test_a_matrix_that_was_written_is_read(
    data: st.DataObject, rows: int, width: int, datatype: str, dtype: str, form: str
) -> None:
    cells = st.floats(-1000, 1000, width=16) if datatype.startswith("FP") else st.integers(0, 100)
    flat = data.draw(st.lists(cells, min_size=rows * width, max_size=rows * width))
    nested = [flat[i : i + width] for i in range(0, len(flat), width)]
    if form == "binary":
        octets = written(flat, datatype)
        request = read_binary([binary_input(len(octets), (rows, width), datatype)], octets, matrix(dtype, width))
    else:
        shaped = nested if form == "nested" else flat
        request = read({"inputs": [tensor("x", [rows, width], datatype, shaped)]}, matrix(dtype, width))
    assert matrix_of(request).tolist() == nested
    assert matrix_of(request).dtype == dtype


def check(body: bytes, header_length: str | None, signature: Signature) -> None:
    """Decode, and encode what came out: a value or an `InputError`, nothing else."""
    try:
        request = decode(body, header_length, signature, 50)
    except InputError as error:
        str(error).encode()
        return
    if isinstance(request.data, np.ndarray):
        assert request.data.shape == (request.rows, len(signature.inputs))
        may_miss = np.array([feature.nullable for feature in signature.inputs])
        assert not np.isinf(request.data).any()
        assert not np.isnan(request.data[:, ~may_miss]).any()
    else:
        assert tuple(request.data) == signature.names
        assert {column.shape for column in request.data.values()} == {(request.rows,)}
    answers = {"predict": np.zeros(request.rows, np.int64), "predict_proba": np.zeros((request.rows, 2))}
    encode(request, signature, "m", "1", answers)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
#: Values that are wrong nearly everywhere; sampled, since drawing from `ANYTHING` takes ten times longer.
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0.5, 2**64, 1e300, "", "x", "\ud800", [], [[]], [1], [None], {}, {"a": 1}]
)
CELLS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 1e39, None, True, "red", "é", 2**63, -(2**63) - 1]))
NUMERIC = [name for name in CODES if name != "BOOL"]
DATATYPES_FOR = {"string": ["BYTES"], "bool": ["BOOL"]}


@st.composite
def rough_tensors(draw: st.DrawFn, name: str, rows: int, width: int, dtype: str) -> tuple[dict[str, Any], bytes]:
    """Draw a tensor that is right but for its elements, and the bytes behind the JSON."""
    datatype = draw(st.sampled_from(DATATYPES_FOR.get(dtype, NUMERIC)))
    shape = [rows, width] if width > 1 or draw(st.booleans()) else [rows]
    count = rows * width
    if draw(st.booleans()):
        size = 4 * count if datatype == "BYTES" else count * struct.calcsize(CODES[datatype])
        octets = draw(st.just(bytes(size)) | st.binary(min_size=size, max_size=size))
        return binary_input(size, tuple(shape), datatype, name), octets
    good: Any = {"BYTES": "red", "BOOL": True}.get(datatype, 1)
    cells = [good] * count
    if draw(st.booleans()):
        cells[draw(st.integers(0, count - 1))] = draw(CELLS)
    return tensor(name, shape, datatype, cells), b""


@st.composite
def rough_requests(draw: st.DrawFn) -> tuple[bytes, str, Signature]:
    """Draw a body that has at most two faults around its elements, with its header's length and the model."""
    signature = draw(st.sampled_from(SIGNATURES))
    rows = draw(st.integers(1, 3))
    if signature is FRAME or draw(st.booleans()):
        drawn = [draw(rough_tensors(feature.name, rows, 1, feature.dtype)) for feature in signature.inputs]
    else:
        drawn = [draw(rough_tensors("features", rows, len(signature.inputs), signature.inputs[0].dtype))]
    inputs = [item for item, _ in drawn]
    tail = b"".join(octets for _, octets in drawn)
    document: dict[str, Any] = {"inputs": inputs}
    for fault in draw(st.lists(st.sampled_from(["field", "again", "less", "around", "tail"]), max_size=2)):
        if fault == "field" and inputs:
            draw(st.sampled_from(inputs))[draw(st.sampled_from(["name", "shape", "datatype", "data", "x"]))] = draw(ODD)
        elif fault == "again" and inputs:
            inputs.append(dict(draw(st.sampled_from(inputs))))
        elif fault == "less":
            del inputs[-1:]
        elif fault == "around":
            document[draw(st.sampled_from(["id", "outputs", "parameters", "inputs"]))] = draw(ODD)
        elif fault == "tail":
            tail = draw(st.sampled_from([tail[:-1], tail + b"x", tail[::-1]]))
    header = json.dumps(document).encode()
    off = draw(st.sampled_from([-1, 1, 1000])) if draw(st.integers(0, 9)) == 0 else 0
    return header + tail, str(len(header) + off), signature


def mutations(body: bytes) -> Iterator[bytes]:
    """Yield the body with each byte in turn changed, left out, or doubled."""
    for i in range(len(body)):
        for code in b'\0"[]{},:0-\xff':
            yield body[:i] + bytes([code]) + body[i + 1 :]
        yield body[:i] + body[i + 1 :]
        yield body[:i] + body[i : i + 1] + body[i:]


@settings(max_examples=1000)
@given(body=st.binary(max_size=60), length=st.none() | st.text(max_size=4) | st.integers(-2, 70).map(str))
def test_any_bytes_give_a_value_or_an_input_error(body: bytes, length: str | None) -> None:
    check(body, length, MATRIX)


@settings(max_examples=500)
@given(document=ANYTHING | st.fixed_dictionaries({"inputs": ANYTHING}, optional={"outputs": ANYTHING, "id": ANYTHING}))
def test_any_json_gives_a_value_or_an_input_error(document: Any) -> None:
    check(json.dumps(document).encode(errors="replace"), None, MATRIX)


@settings(max_examples=1200)
@given(request=rough_requests())
def test_nearly_right_requests_give_a_value_or_an_input_error(request: tuple[bytes, str, Signature]) -> None:
    check(*request)


@pytest.mark.parametrize("form", ["json", "binary"])
def test_every_byte_of_a_good_request_may_change(form: str) -> None:
    body = json.dumps({"id": "1", "inputs": [features()], "outputs": [{"name": "predict"}]}).encode()
    length = None
    if form == "binary":
        header = json.dumps({"inputs": [binary_input(48)]}).encode()
        body, length = header + SIX, str(len(header))
    for changed in mutations(body):
        check(changed, length, MATRIX)
