"""What a `muelle.bundle.pickle_walker.Walker` holds in place of real objects, and what it takes for a key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from muelle.bundle.pickle_dtypes import DtypeMaker
from muelle.errors import UnsafePickleError

#: Elements of a tuple that is a dictionary's key or a set's member, tuples within included. Hashing recurses on the C
#: stack without a limit, and takes exponential time when tuples hold the same tuple twice.
_KEY_ELEMENTS: Final = 1000


class Inert:
    """Stands in a scan for whatever the stream names or makes."""

    __slots__ = ()


class ArrayWrapper:
    """Stands for ``joblib.numpy_pickle.NumpyArrayWrapper``, after whose state an array follows in the file."""

    __slots__ = ()


class ArrayType:
    """Stands for ``numpy.ndarray``, which only rebuilding functions may see.

    Left in a model, it could be called with a buffer of its own as elements, and so read arbitrary memory.
    """

    __slots__ = ()


def encode(characters: Any, encoding: Any) -> bytes:
    """Stand for ``_codecs.encode``, by which protocols before 3 write bytes, those of a dtype's state among them."""
    if type(characters) is not str or encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError("_codecs.encode is called with something else than bytes as Latin-1")
    return characters.encode("latin-1")


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that would take too deep or too long to hash."""
    for key in keys:
        pending, n_elements = [key], 0
        while pending:
            value = pending.pop()
            if isinstance(value, slice):  # hashable since Python 3.12
                value = (value.start, value.stop, value.step)
            if isinstance(value, tuple):
                n_elements += len(value) + 1
                if n_elements > _KEY_ELEMENTS:
                    raise UnsafePickleError(f"a key holds more than {_KEY_ELEMENTS} elements")
                pending.extend(value)


class Memo(dict[int, Any]):
    """The objects that a stream may refer to again, with each dtype in its finished form."""

    def __getitem__(self, key: int) -> Any:
        value = super().__getitem__(key)
        if type(value) is DtypeMaker:
            value = value.dtype
        if value is None or type(value) is ArrayWrapper:
            # None is pickled by an opcode of its own and never memoized.
            raise UnsafePickleError(f"memo entry {key} is used before it is complete")
        return value
