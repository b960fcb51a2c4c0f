"""Tensors in JSON and in bytes against an independent writer (`struct`), and everything that must be refused."""

from __future__ import annotations

import contextlib
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muelle.errors import InputError
from service.protocols.binary import binary_tensor, tensor_bytes
from service.protocols.tensors import DATATYPES, DATATYPES_OF_DTYPES, json_tensor

CODES = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
RANGES = {
    name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if name.startswith("INT") else (0, 2**bits - 1)
    for name in CODES
    if "INT" in name
    for bits in [int(name.lstrip("UINT"))]
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return TEXT
    if datatype.startswith("FP"):
        return st.floats(width=int(datatype[2:]), allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    return st.integers(*RANGES[datatype])


def written(values: list[Any], datatype: str) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in values)
    return struct.pack(f"<{len(values)}{CODES[datatype]}", *values)


def shaped(flat: list[Any], width: int) -> list[list[Any]]:
    return [flat[i : i + width] for i in range(0, len(flat), width)]


def refused(data: Any, shape: tuple[int, ...], datatype: str) -> InputError:
    with pytest.raises(InputError) as caught:
        json_tensor(data, shape, datatype, "inputs[0]")
    return caught.value


def refused_bytes(body: bytes, shape: tuple[int, ...], datatype: str, size: int | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        binary_tensor(body, 0, len(body) if size is None else size, shape, datatype, "inputs[0]")
    return caught.value


def test_the_table_has_all_datatypes_with_their_sizes() -> None:
    assert set(DATATYPES) == {*CODES, "BYTES"}
    for name, code in CODES.items():
        assert DATATYPES[name].itemsize == struct.calcsize(code), name
    assert set(DATATYPES_OF_DTYPES.values()) <= set(DATATYPES)


@pytest.mark.parametrize("datatype", DATATYPES)
@settings(max_examples=60)
@given(data=st.data())
def test_what_was_written_is_what_is_read(datatype: str, data: st.DataObject) -> None:
    rows, width = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    flat = data.draw(st.lists(elements(datatype), min_size=rows * width, max_size=rows * width))
    front = data.draw(st.binary(max_size=9))  # the JSON in front, of any length: the numbers then lie unaligned
    octets = written(flat, datatype)

    read = [
        json_tensor(flat, (rows, width), datatype, "x"),
        json_tensor(flat, (rows * width,), datatype, "x"),
        json_tensor(shaped(flat, width), (rows, width), datatype, "x"),
        binary_tensor(front + octets + b"more", len(front), len(octets), (rows, width), datatype, "x"),
    ]
    for tensor in read:
        assert tensor.values.dtype == DATATYPES[datatype]
        assert tensor.values.shape == (rows * width,)
        assert tensor.cells() == flat
        assert tensor_bytes(tensor.values.reshape(rows, width), datatype) == octets


def test_bytes_are_row_major_and_little_endian_whatever_the_array_is() -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3))
    assert tensor_bytes(array, "FP64") == struct.pack("<6d", 0, 1, 2, 3, 4, 5)
    assert tensor_bytes(np.array(["ä", ""], dtype=object), "BYTES") == b"\x02\0\0\0\xc3\xa4\0\0\0\0"
    assert tensor_bytes(np.array([True, False]), "BOOL") == b"\x01\0"


@pytest.mark.parametrize("datatype", DATATYPES)
def test_null_is_a_missing_element(datatype: str) -> None:
    value: Any = {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
    tensor = json_tensor([value, None], (2,), datatype, "x")
    assert tensor.cells() == [value, None]
    if datatype.startswith("FP"):
        assert tensor.values.dtype == DATATYPES[datatype]
        assert math.isnan(tensor.values[1])


def test_nan_in_bytes_stays_nan() -> None:
    tensor = binary_tensor(struct.pack("<2d", 1.0, math.nan), 0, 16, (2,), "FP64", "x")
    assert math.isnan(tensor.cells()[1])


@pytest.mark.parametrize(
    ("datatype", "value", "got"),
    [
        ("FP64", "abc", '"abc"'),
        ("FP64", "1", '"1"'),
        ("FP64", True, "true"),
        ("FP64", [1], "a list"),
        ("FP64", {}, "an object"),
        ("FP64", math.inf, "not finite"),
        ("FP64", 10**400, "1329 bits"),
        ("FP32", 1e39, "1e+39"),
        ("FP32", -1e39, "-1e+39"),
        ("FP32", 10**39, "1" + "0" * 39),
        ("FP16", 65520, "65520"),
        ("INT64", 1.5, "1.5"),
        ("INT64", False, "false"),
        ("INT64", "1", '"1"'),
        ("INT64", 2**63, str(2**63)),
        ("INT64", -(2**63) - 1, str(-(2**63) - 1)),
        ("INT64", float(-(2**63) - 1), "-9.2"),  # orjson's rounding of a smaller integer
        ("INT64", 1e300, "1e+300"),
        ("INT64", math.inf, "not finite"),
        ("INT8", 128, "128"),
        ("INT8", -129.0, "-129"),
        ("UINT8", -1, "-1"),
        ("UINT8", 256, "256"),
        ("UINT64", 2**64, str(2**64)),
        ("UINT64", 2.0**64, "1.8446"),
        ("BOOL", 1, "1"),
        ("BOOL", 0.0, "0.0"),
        ("BOOL", "true", '"true"'),
        ("BYTES", 1, "1"),
        ("BYTES", True, "true"),
        ("BYTES", ["a"], "a list"),
    ],
)
def test_an_element_that_is_none_of_the_datatype_is_named(datatype: str, value: Any, got: str) -> None:
    good: Any = {"BOOL": True, "BYTES": "a"}.get(datatype, 1)
    flat = [good] * 7 + [value]
    error = refused(flat, (8,), datatype)
    assert (error.code, error.where) == ("invalid_value", "inputs[0].data[7]")
    assert got in str(error)
    assert datatype in str(error)
    assert refused(shaped(flat, 4), (2, 4), datatype).where == "inputs[0].data[1][3]"
    assert refused([None, *flat[1:]], (8,), datatype).where == "inputs[0].data[7]"


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("INT8", 127.0),
        ("INT64", -3.0),
        ("UINT64", 2.0**63),
        ("UINT64", 2**64 - 1),
        ("FP32", 3.4028234e38),
        ("FP16", 65504),
    ],
)
def test_numbers_at_the_edge_are_taken(datatype: str, value: float) -> None:
    tensor = json_tensor([value, 1], (2,), datatype, "x")
    assert tensor.values[0] == DATATYPES[datatype].type(value)
    assert tensor.values.dtype == DATATYPES[datatype]


@pytest.mark.parametrize(
    ("data", "shape", "where"),
    [
        ([1, 2, 3], (4,), ".data"),
        ([1, 2, 3], (2, 2), ".data"),
        ([1, 2, 3, 4, 5], (2, 2), ".data"),
        ([], (1,), ".data"),
        ([[1, 2], [3, 4]], (4,), ".data"),
        ([[1, 2], [3, 4]], (1, 4), ".data"),
        ([[1, 2], [3, 4], [5, 6]], (2, 3), ".data"),
        ([[1, 2], [3]], (2, 2), ".data[1]"),
        ([[1, 2], [3, 4, 5]], (2, 2), ".data[1]"),
        ([[1, 2], 3], (2, 2), ".data[1]"),
        ([[], []], (2, 2), ".data[0]"),
    ],
)
def test_data_of_another_shape_is_refused(data: Any, shape: tuple[int, ...], where: str) -> None:
    error = refused(data, shape, "FP64")
    assert (error.code, error.where) == ("shape_mismatch", f"inputs[0]{where}")


def test_data_that_mixes_numbers_and_lists_is_refused() -> None:
    assert refused([1, [2]], (2,), "FP64").where == "inputs[0].data[1]"
    assert refused([[[1]]], (1, 1), "FP64").where == "inputs[0].data[0][0]"


@pytest.mark.parametrize("data", [None, 1, "1", {}, True])
def test_data_that_is_no_list_is_refused(data: Any) -> None:
    assert refused(data, (1,), "FP64").code == "invalid_shape"


@pytest.mark.parametrize("size", [0, 7, 15, 17, 24])
def test_bytes_that_are_not_what_the_shape_needs_are_refused(size: int) -> None:
    error = refused_bytes(bytes(32), (2,), "FP64", size)
    assert (error.code, error.where) == ("invalid_binary", "inputs[0].parameters.binary_data_size")
    assert f"needs 16 bytes, got {size}" in str(error)


def test_a_boolean_byte_is_0_or_1() -> None:
    error = refused_bytes(b"\0\1\2", (3,), "BOOL")
    assert (error.code, error.where) == ("invalid_value", "inputs[0].data[2]")


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"\1\0\0\0a", 2),
        (b"\1\0\0\0a\1\0\0", 2),
        (b"\2\0\0\0a", 1),
        (b"\xff\xff\xff\xffabcdefgh", 1),
        (b"\1\0\0\0ab", 1),
        (b"\0\0\0\0\0\0\0\0", 1),
        (b"", 1),
        (b"abc", 1),
        (b"\0\0\0\0", 2**62),
    ],
)
def test_lengths_of_strings_that_lie_are_refused(body: bytes, count: int) -> None:
    error = refused_bytes(body, (count,), "BYTES")
    assert (error.code, error.where) == ("invalid_binary", "inputs[0].parameters.binary_data_size")


def test_strings_do_not_reach_beyond_their_size() -> None:
    assert refused_bytes(b"\4\0\0\0abcd", (1,), "BYTES", 6).code == "invalid_binary"


def test_strings_are_utf_8() -> None:
    error = refused_bytes(b"\1\0\0\0a\2\0\0\0a\xff", (2,), "BYTES")
    assert (error.code, error.where) == ("invalid_value", "inputs[0].data[1]")


@settings(max_examples=1500)
@given(
    body=st.binary(max_size=40),
    size=st.integers(0, 40),
    start=st.integers(0, 40),
    shape=st.one_of(st.tuples(st.integers(1, 6)), st.tuples(st.integers(1, 4), st.integers(1, 4))),
    datatype=st.sampled_from(sorted(DATATYPES)),
)
def test_any_bytes_give_a_tensor_or_an_input_error(
    body: bytes, size: int, start: int, shape: tuple[int, ...], datatype: str
) -> None:
    start = min(start, len(body))
    size = min(size, len(body) - start)
    tensor = None
    with contextlib.suppress(InputError):
        tensor = binary_tensor(body, start, size, shape, datatype, "x")
    if tensor is not None:
        assert tensor_bytes(tensor.values, datatype) == body[start : start + size]
