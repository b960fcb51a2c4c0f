"""The binary tensor extension of the Open Inference Protocol v2: requests whose tensors lie behind the JSON."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from oip_bodies import (
    SIX,
    binary_input,
    features,
    matrix,
    matrix_of,
    read,
    read_binary,
    tensor,
)

from muelle.errors import InputError


def test_a_binary_matrix() -> None:
    request = read_binary([binary_input(48)], SIX)
    assert matrix_of(request).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("pad", range(9))
def test_a_binary_matrix_is_aligned_and_writable_wherever_it_lay(pad: int) -> None:
    data = matrix_of(read_binary([binary_input(48, name="x" * (pad + 1))], SIX))
    assert data.flags.aligned
    assert data.flags.writeable
    assert data.flags.c_contiguous
    assert data.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_json_and_binary_tensors_in_one_request() -> None:
    inputs = [
        binary_input(16, (2,), "FP64", "x2"),
        tensor("x0", [2], "INT64", [1, 2]),
        binary_input(4, (2, 1), "INT16", "x1"),
    ]
    data = matrix_of(read_binary(inputs, struct.pack("<2d2h", 0.5, 1.5, 7, 8)))
    assert data.tolist() == [[1, 7, 0.5], [2, 8, 1.5]]


def test_nan_in_bytes_only_where_a_feature_may_miss() -> None:
    body = struct.pack("<6d", 1, math.nan, 3, 4, 5, 6)
    np.testing.assert_array_equal(
        matrix_of(read_binary([binary_input(48)], body, matrix(nullable=(1,)))), [[1, math.nan, 3], [4, 5, 6]]
    )
    with pytest.raises(InputError, match=r"^inputs\[0\].data\[1\]: .*NaN") as caught:
        read_binary([binary_input(48)], body, matrix(nullable=(0, 2)))
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_in_bytes_is_refused(value: float) -> None:
    body = struct.pack("<6d", 1, 2, 3, 4, 5, value)
    with pytest.raises(InputError, match=r"^inputs\[0\].data\[5\]: .*not finite"):
        read_binary([binary_input(48)], body, matrix(nullable=(0, 1, 2)))


@pytest.mark.parametrize("size", [47, 49, 0, -1, 10**30, True, 48.0, "48"])
def test_a_binary_size_that_lies_is_refused(size: Any) -> None:
    with pytest.raises(InputError) as caught:
        read_binary([binary_input(size)], SIX)
    assert (caught.value.code, caught.value.where) == ("invalid_binary", "inputs[0].parameters.binary_data_size")


@pytest.mark.parametrize("tail", [b"", SIX[:-1], SIX + b"\0", SIX * 2])
def test_bytes_that_are_too_few_or_left_over_are_refused(tail: bytes) -> None:
    with pytest.raises(InputError) as caught:
        read_binary([binary_input(48)], tail)
    assert caught.value.code == "invalid_binary"


def test_bytes_behind_json_tensors_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        read_binary([features()], b"\0")
    assert caught.value.code == "invalid_binary"


@pytest.mark.parametrize("length", ["", "-1", "+1", "1.0", "1_0", "0x10", "ten", "٣", "1" * 30, "1000"])
def test_a_header_length_that_lies_is_refused(length: str) -> None:
    with pytest.raises(InputError, match="Inference-Header-Content-Length") as caught:
        read_binary([binary_input(48)], SIX, header_length=length)
    assert caught.value.code == "invalid_binary"


@pytest.mark.parametrize("length", ["0", "1", "40"])
def test_a_header_length_inside_the_json_is_refused(length: str) -> None:
    with pytest.raises(InputError) as caught:
        read_binary([binary_input(48)], SIX, header_length=length)
    assert caught.value.code == "invalid_json"


def test_a_binary_size_without_the_header_says_which_header() -> None:
    with pytest.raises(InputError, match="Inference-Header-Content-Length") as caught:
        read({"inputs": [binary_input(48)]})
    assert caught.value.code == "invalid_binary"


def test_data_and_bytes_at_once_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        read_binary([features(parameters={"binary_data_size": 48})], SIX)
    assert caught.value.code == "invalid_binary"


def test_the_header_may_cover_the_whole_body() -> None:
    assert read_binary([features()], b"").rows == 2
