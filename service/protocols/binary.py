"""The binary tensor extension of the Open Inference Protocol v2: bytes ↔ numpy arrays.

Elements are little-endian and row-major, without gaps; a BYTES element has its length in front, in four bytes.
"""

from __future__ import annotations

import math
import struct
from typing import Final

import numpy as np

from muelle.bundle.data import Array
from muelle.errors import InputError
from service.protocols.tensors import DATATYPES, Tensor, places

_PREFIX: Final = struct.Struct("<I")


def binary_tensor(body: bytes, start: int, size: int, shape: tuple[int, ...], datatype: str, where: str) -> Tensor:
    """Read a tensor from ``body[start : start + size]``, which the caller knows to be inside the body.

    Parameters
    ----------
    body : bytes
        The request's body.
    start, size : int
        The tensor's part of it, in bytes.
    shape : tuple of one or two int
        What the tensor says of itself.
    datatype : str
        One of `DATATYPES`.
    where : str
        The tensor's place in the body.

    Raises
    ------
    InputError
        ``invalid_binary`` when the bytes are not what shape and datatype need; ``invalid_value`` for an element.
    """
    dtype = DATATYPES[datatype]
    count = math.prod(shape)
    place = places(where, None)
    if dtype.kind == "O":
        return Tensor(_bytes_values(body, start, size, count, where), place, binary=True)
    if size != count * dtype.itemsize:
        message = f"the shape {list(shape)} of {datatype} needs {count * dtype.itemsize} bytes, got {size}"
        raise InputError(message, code="invalid_binary", where=f"{where}.parameters.binary_data_size")
    if dtype.kind != "b":
        return Tensor(np.frombuffer(body, dtype, count, start), place, binary=True)
    octets = np.frombuffer(body, np.uint8, count, start)
    wrong = octets > 1
    if wrong.any():
        index = int(wrong.argmax())
        message = f"expected the byte 0 or 1, got {octets[index]}"
        raise InputError(message, code="invalid_value", where=place(index))
    return Tensor(octets.view(np.bool_), place, binary=True)


def tensor_bytes(array: Array, datatype: str) -> bytes:
    """Return an array's elements in the binary form, row-major.

    Parameters
    ----------
    array : array of any shape
        Object of str for BYTES.
    datatype : str
        One of `DATATYPES`.
    """
    if datatype != "BYTES":
        return array.astype(DATATYPES[datatype], copy=False).tobytes()
    parts: list[bytes] = []
    for text in array.ravel().tolist():
        encoded = text.encode()
        parts += (_PREFIX.pack(len(encoded)), encoded)
    return b"".join(parts)


def _bytes_values(body: bytes, start: int, size: int, count: int, where: str) -> Array:
    """Return ``(count,)`` str from elements with their length in front."""
    end = start + size
    # Before the array is made: a shape may claim any number of elements, each takes four bytes at least.
    if count * _PREFIX.size > size:
        message = f"{count} elements of BYTES need {count * _PREFIX.size} bytes or more, got {size}"
        raise InputError(message, code="invalid_binary", where=f"{where}.parameters.binary_data_size")
    values = np.empty(count, dtype=object)
    for index in range(count):
        if start + _PREFIX.size > end:
            raise _short(where, index, count)
        (length,) = _PREFIX.unpack_from(body, start)
        start += _PREFIX.size
        if start + length > end:
            raise _short(where, index, count)
        try:
            values[index] = body[start : start + length].decode()
        except UnicodeDecodeError as error:
            message = f"expected UTF-8, byte {error.start} of the element is not"
            raise InputError(message, code="invalid_value", where=f"{where}.data[{index}]") from error
        start += length
    if start != end:
        message = f"{count} elements of BYTES end {end - start} bytes before binary_data_size"
        raise InputError(message, code="invalid_binary", where=f"{where}.parameters.binary_data_size")
    return values


def _short(where: str, index: int, count: int) -> InputError:
    message = f"element {index} of {count} reaches beyond binary_data_size"
    return InputError(message, code="invalid_binary", where=f"{where}.parameters.binary_data_size")
