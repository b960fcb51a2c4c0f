"""Tensors of the Open Inference Protocol v2: the datatypes, and JSON elements → numpy arrays.

In JSON null is a missing value: NaN for the FP datatypes, None for the others. Whether a feature may miss one is not
known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from muelle.bundle.data import Array
from muelle.errors import InputError
from muelle.inference.rows import shown

#: Each datatype's elements in memory, and on the wire but for BYTES.
DATATYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
#: What metadata and answers call the signature's dtypes.
DATATYPES_OF_DTYPES: Final[Mapping[str, str]] = {
    "float64": "FP64",
    "float32": "FP32",
    "int64": "INT64",
    "bool": "BOOL",
    "string": "BYTES",
}

#: Python types that a JSON element may have, by the kind of the numpy dtype.
_EASY: Final[Mapping[str, frozenset[type]]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({float, int}),
    "O": frozenset({str}),
}
_EXPECTED: Final = {"b": "true or false", "i": "an integer", "u": "an integer", "f": "a finite number", "O": "a string"}
#: orjson gives integers below -2**63 as floats, and the first of them round to -2**63 itself.
_LEAST_INTEGRAL: Final = -(2.0**63)

Place = Callable[[int], str]


class Tensor(NamedTuple):
    """Elements that fit their datatype.

    Attributes
    ----------
    values : array of shape (n_elements,)
        Row-major, in the datatype's dtype; object with None where a BOOL, integer or BYTES element is missing.
        A view of the request's body for binary numbers: perhaps unaligned, not writable.
    place : callable
        An element's number to its place in the body, for messages.
    binary : bool
        Whether the elements came as bytes.
    """

    values: Array
    place: Place
    binary: bool

    def cells(self) -> list[Any]:
        """Return the elements as Python values, as a JSON parser would; None is null."""
        cells: list[Any] = self.values.tolist()
        if self.values.dtype.kind == "f" and not self.binary:
            return [None if math.isnan(cell) else cell for cell in cells]
        return cells


def places(where: str, width: int | None) -> Place:
    """Return what names an element's place; `width` is the row's length of nested data, None when it is flat."""
    if width is None:
        return lambda index: f"{where}.data[{index}]"
    return lambda index: f"{where}.data[{index // width}][{index % width}]"


def json_tensor(data: object, shape: tuple[int, ...], datatype: str, where: str) -> Tensor:
    """Read the ``data`` of a JSON tensor, flat or nested as its shape is.

    Parameters
    ----------
    data : object
        As a JSON parser returns it.
    shape : tuple of one or two int
        What the tensor says of itself.
    datatype : str
        One of `DATATYPES`.
    where : str
        The tensor's place in the body.

    Raises
    ------
    InputError
        When the number of elements is not the shape's product, or at the first element that is none of the datatype.
    """
    if type(data) is not list:
        raise InputError(f"expected a list, got {shown(data)}", code="invalid_shape", where=f"{where}.data")
    width = None
    if data and type(data[0]) is list:
        width = shape[-1]
        data = _flattened(data, shape, where)
    if len(data) != math.prod(shape):
        message = f"the shape {list(shape)} has {math.prod(shape)} elements, the data {len(data)}"
        raise InputError(message, code="shape_mismatch", where=f"{where}.data")
    place = places(where, width)
    return Tensor(_json_values(data, datatype, place), place, binary=False)


def _flattened(data: list[Any], shape: tuple[int, ...], where: str) -> list[Any]:
    """Return the elements of nested data, whose lists must be the shape's rows."""
    if len(shape) != 2:
        message = f"expected a flat list for the shape {list(shape)}, got a list of lists"
        raise InputError(message, code="shape_mismatch", where=f"{where}.data")
    rows, width = shape
    if len(data) != rows:
        message = f"the shape {list(shape)} has {rows} rows, the data {len(data)}"
        raise InputError(message, code="shape_mismatch", where=f"{where}.data")
    flat: list[Any] = []
    for i, row in enumerate(data):
        if type(row) is not list or len(row) != width:
            got = f"{len(row)}" if type(row) is list else shown(row)
            message = f"expected a list of {width} elements, got {got}"
            raise InputError(message, code="shape_mismatch", where=f"{where}.data[{i}]")
        flat += row
    return flat


def _json_values(cells: list[Any], datatype: str, place: Place) -> Array:
    dtype = DATATYPES[datatype]
    types = set(map(type, cells))
    if not types <= _EASY[dtype.kind] | {type(None)}:
        cells = [_checked(cell, datatype, place, i) for i, cell in enumerate(cells)]
    try:
        return _array(cells, dtype, missing=type(None) in types)
    except OverflowError:
        for i, cell in enumerate(cells):
            _checked(cell, datatype, place, i)
        raise


def _array(cells: list[Any], dtype: np.dtype[Any], *, missing: bool) -> Array:
    """Return the array of cells of the right types; raises OverflowError when one is out of the dtype's range."""
    if dtype.kind == "f":
        # numpy makes NaN of None. By way of float64, so that the rounding is the same for integers and floats.
        array = np.array(cells, dtype=np.float64)
        if dtype.itemsize < 8:
            with np.errstate(over="ignore"):
                array = array.astype(dtype)
        if np.isinf(array).any():
            raise OverflowError
        return array
    array = np.array([cell for cell in cells if cell is not None] if missing else cells, dtype=dtype)
    if not missing:
        return array
    full = np.empty(len(cells), dtype=object)
    full[:] = cells
    return full


def _checked(cell: Any, datatype: str, place: Place, index: int) -> Any:
    """Return a JSON element that fits the datatype; null is left to the feature."""
    if cell is None:
        return None
    dtype = DATATYPES[datatype]
    value = cell
    # 6.0 says the same as 6; 6.5 does not.
    if dtype.kind in "iu" and type(cell) is float and cell.is_integer() and cell != _LEAST_INTEGRAL:
        value = int(cell)
    if type(value) in _EASY[dtype.kind]:
        try:
            _array([value], dtype, missing=False)
        except OverflowError:
            pass
        else:
            return value
    message = f"expected {_EXPECTED[dtype.kind]} of {datatype}, got {shown(cell)}"
    raise InputError(message, code="invalid_value", where=place(index))
