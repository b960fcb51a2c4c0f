"""The dtype of a pickled array, built by public constructors that check what the stream says of it.

``numpy.dtype`` is not called with the stream's arguments, nor given its state: that state can lie about offsets and
flags and so read arbitrary memory, and on a dtype that is not a copy it would change float64 for the whole process.
"""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

from muelle.bundle.allowlist import is_shape
from muelle.errors import UnsafePickleError

_DTYPE_FIELDS: Final = 255
_ALIGNED_STRUCT_FLAG: Final = 0x80
_DTYPE_CODE: Final = re.compile(r"[biufcmMOSUV]\d{1,9}", re.ASCII)
_TIME_UNIT: Final = re.compile(r"[A-Za-z]{1,7}", re.ASCII)


class DtypeMaker:
    """Stands for ``numpy.dtype`` itself, and for a dtype between its creation and its state."""

    __slots__ = ("code", "dtype")

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype: np.dtype[Any] | None = None


def dtype_maker(args: tuple[Any, ...]) -> DtypeMaker:
    """Check the call of ``numpy.dtype`` as numpy pickles it: a code, no alignment, a copy."""
    if len(args) != 3 or type(args[0]) is not str or not _DTYPE_CODE.fullmatch(args[0]) or args[1:] != (False, True):
        raise UnsafePickleError("numpy.dtype is called with something else than a plain type's code")
    return DtypeMaker(args[0])


def build_dtype(code: str, state: Any) -> np.dtype[Any]:
    """Build the dtype that a pickled state describes, by public constructors that check it.

    Parameters
    ----------
    code : str
        Kind and item size, such as ``f8``.
    state : tuple
        ``(version, byte order, sub-array, names, fields, item size, alignment, flags[, metadata])``.
    """
    if type(state) is not tuple or len(state) not in (8, 9) or state[1] not in ("<", ">", "|", "=", None):
        raise UnsafePickleError("a numpy.dtype is given a state of an unknown form")
    _, byte_order, sub_array, names, fields, _, _, flags = state[:8]
    dtype: np.dtype[Any] = np.dtype(code)
    if sub_array is not None:
        base, shape = sub_array
        if not is_shape(shape):  # numpy reads other second elements as a dtype to reinterpret the first by
            raise UnsafePickleError("a sub-array's numpy.dtype has an ill-described shape")
        built = np.dtype((_field_dtype(base), shape))
    elif names is not None:
        if type(names) is not tuple or type(fields) is not dict or not len(names) == len(fields) <= _DTYPE_FIELDS:
            raise UnsafePickleError(
                f"a structured numpy.dtype has more than {_DTYPE_FIELDS} fields, or ill-described ones"
            )
        built = np.dtype(
            {
                "names": list(names),
                "formats": [_field_dtype(fields[name][0]) for name in names],
                "offsets": [fields[name][1] for name in names],
                "itemsize": dtype.itemsize,
            },
            align=bool(flags & _ALIGNED_STRUCT_FLAG),
        )
    elif dtype.kind in "mM":
        unit, count, *_ = state[8][1]
        if not _TIME_UNIT.fullmatch(unit.decode("ascii")) or type(count) is not int:
            raise UnsafePickleError("a time numpy.dtype has an ill-described unit")
        name = unit.decode("ascii")
        built = dtype if name == "generic" else np.dtype(f"{dtype.kind}8[{count}{name}]")
    else:
        built = dtype
    if built.itemsize != dtype.itemsize:
        raise UnsafePickleError(f"a numpy.dtype of {dtype.itemsize} bytes is given a state of {built.itemsize} bytes")
    # The fields of a structure carry their own byte order.
    return built if names is not None or byte_order in (None, "|") else built.newbyteorder(byte_order)


def _field_dtype(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, np.dtype):
        raise UnsafePickleError("a field of a numpy.dtype is not a dtype")
    return dtype
