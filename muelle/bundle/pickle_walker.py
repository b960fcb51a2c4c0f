"""Following a pickle or joblib stream as it would be loaded, opcode by opcode.

joblib writes the bytes of each numeric array in the middle of the pickle, right after the ``BUILD`` of a
``NumpyArrayWrapper``, and arrays of objects as a pickle within the pickle. To find every global, a file must be
followed as it would be loaded. `Walker` does that for both passes, the scan and the load, so that they can't disagree
about what the stream says.

joblib's own unpickler is not used: before 1.6 it reads arrays of objects with the plain ``pickle.load``, which imports
anything.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any, ClassVar, Final, NoReturn

import numpy as np

from muelle.bundle.allowlist import Name, is_shape, real_name
from muelle.bundle.pickle_dtypes import DtypeMaker, build_dtype, dtype_maker
from muelle.bundle.pickle_values import ArrayWrapper, Inert, Memo, check_keys, encode
from muelle.errors import UnsafePickleError

#: Longer names of modules and attributes only serve to blow up messages.
_NAME_LENGTH: Final = 255

#: Opcodes that Python 3's pickle doesn't write for a model, and that would need trust in something outside the file.
_REFUSED_OPCODES: Final = {
    pickle.PERSID: "a persistent id",
    pickle.BINPERSID: "a persistent id",
    pickle.EXT1: "a code of the extension registry",
    pickle.EXT2: "a code of the extension registry",
    pickle.EXT4: "a code of the extension registry",
    pickle.NEXT_BUFFER: "an out-of-band buffer",
    pickle.READONLY_BUFFER: "an out-of-band buffer",
    pickle.INST: "a Python 2 instance",
    pickle.OBJ: "a Python 2 instance",
    pickle.STRING: "a Python 2 string",
    pickle.BINSTRING: "a Python 2 string",
    pickle.SHORT_BINSTRING: "a Python 2 string",
}


def _refuse(what: str) -> Callable[[Any], NoReturn]:
    def load_refused(walker: object) -> NoReturn:
        raise UnsafePickleError(f"the pickle uses {what}, which is not supported")

    return load_refused


class Walker(pickle._Unpickler):
    """Follows a pickle or joblib stream; what its names and calls come to is for the subclasses.

    Python's own `pickle._Unpickler` executes the opcodes that make plain values. Those that could call, write to, hash
    or allocate something are replaced here, and run nothing but the methods that raise `NotImplementedError` below.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    metastack: list[list[Any]]
    memo: dict[int, Any]
    proto: int
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    _unframer: Any

    def __init__(self, file: io.BytesIO, *, is_nested: bool = False) -> None:
        super().__init__(file)
        self.file = file
        self.is_nested = is_nested
        self.memo = Memo()
        self.found: set[Name] = set()

    # What a subclass decides.

    def resolve(self, module: str, name: str) -> Any:
        """Return what a global stands for."""
        raise NotImplementedError

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        """Return what a call comes to."""
        raise NotImplementedError

    def construct(self, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what ``kind.__new__`` comes to."""
        raise NotImplementedError

    def set_state(self, instance: Any, state: Any) -> None:
        """Give an instance its state."""
        raise NotImplementedError

    def take_numbers(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:
        """Read an array of plain numbers, whose bytes are known to follow in the file."""
        raise NotImplementedError

    def take_objects(self, shape: tuple[int, ...]) -> Any:
        """Read an array of objects, which is a pickle of its own."""
        raise NotImplementedError

    # Reading.

    def read(self) -> Any:
        """Follow the stream to its end, which must be the file's end as well."""
        value = self.load()
        frame = self._unframer.current_frame
        if (frame is not None and frame.read(1)) or (not self.is_nested and self.file.read(1)):
            raise UnsafePickleError("something follows the end of the pickle")
        return value

    def expect(self, n_bytes: int) -> int:
        """Return `n_bytes` when as many are left in the file."""
        position = self.file.tell()
        left = self.file.seek(0, io.SEEK_END) - position
        self.file.seek(position)
        if n_bytes > left:
            raise UnsafePickleError(f"the file is truncated: {n_bytes} more bytes should follow, {left} do")
        return n_bytes

    def load_array(self, state: Any) -> Any:
        """Read the array after a wrapper's state, as joblib's ``NumpyArrayWrapper.read_array`` does.

        The wrapper's ``subclass`` has no effect there since numpy 2.
        """
        if type(state) is not dict or self.is_nested:
            raise UnsafePickleError("a joblib array is not where joblib writes one")
        dtype, shape, order = state.get("dtype"), state.get("shape"), state.get("order")
        if (
            not isinstance(dtype, np.dtype)
            or not is_shape(shape)
            or type(order) is not str
            or not dtype.itemsize  # numpy would widen it, and allocate by the shape alone
        ):
            raise UnsafePickleError("a joblib array is described by something else than dtype, shape and order")
        if dtype.hasobject:
            return self.take_objects(shape)
        if state.get("numpy_array_alignment_bytes") is not None:  # absent before joblib 1.2
            padding = self.file.read(self.expect(1))[0]
            self.file.seek(self.expect(padding), io.SEEK_CUR)
        self.expect(math.prod(shape) * dtype.itemsize)
        return self.take_numbers(dtype, shape, order)

    # Opcodes.

    def find_class(self, module: str, name: str) -> Any:
        """Note a global, and return what it stands for."""
        if self.proto < 3:  # written with Python 2's names
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        module, name = real_name(module, name)
        if len(module) > _NAME_LENGTH or len(name) > _NAME_LENGTH:
            raise UnsafePickleError(f"a global's name is longer than {_NAME_LENGTH} characters")
        self.found.add((module, name))
        if (module, name) == ("numpy", "dtype"):
            return DtypeMaker
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return ArrayWrapper
        if (module, name) == ("_codecs", "encode"):
            return encode
        return self.resolve(module, name)

    def load_reduce(self) -> None:
        """Call a function."""
        args, function = self.stack.pop(), self.stack.pop()
        if type(args) is not tuple:
            raise UnsafePickleError("a call's arguments are not a tuple")
        if function is DtypeMaker:
            self.append(dtype_maker(args))
        elif function is encode:
            self.append(encode(*args))
        else:
            self.append(self.call(function, args))

    def load_newobj(self) -> None:
        """Make an instance."""
        args, kind = self.stack.pop(), self.stack.pop()
        self._construct(kind, args, {})

    def load_newobj_ex(self) -> None:
        """Make an instance, with keywords."""
        kwargs, args, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._construct(kind, args, kwargs)

    def _construct(self, kind: Any, args: Any, kwargs: Any) -> None:
        if type(args) is not tuple or type(kwargs) is not dict:
            raise UnsafePickleError("a call's arguments are not a tuple and a dictionary")
        if kind is ArrayWrapper and not args and not kwargs:
            self.append(ArrayWrapper())
        else:
            self.append(self.construct(kind, args, kwargs))

    def load_build(self) -> None:
        """Give an instance its state; an array takes the place of its wrapper, a dtype that of its maker."""
        state, instance = self.stack.pop(), self.stack[-1]
        if type(instance) is ArrayWrapper:
            self.stack[-1] = self.load_array(state)
        elif type(instance) is DtypeMaker:
            instance.dtype = self.stack[-1] = build_dtype(instance.code, state)
        else:
            self.set_state(instance, state)

    def load_append(self) -> None:
        """Append one item."""
        item, target = self.stack.pop(), self.stack[-1]
        self._extend(target, [item])

    def load_appends(self) -> None:
        """Append the items since the mark."""
        items, target = self.pop_mark(), self.stack[-1]
        self._extend(target, items)

    def _extend(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, list):
            list.extend(target, items)
        elif isinstance(target, collections.deque):
            collections.deque.extend(target, items)
        elif type(target) is not Inert:
            raise UnsafePickleError(f"items are appended to a {type(target).__name__}")

    def load_setitem(self) -> None:
        """Set one item."""
        value, key, target = self.stack.pop(), self.stack.pop(), self.stack[-1]
        self._set_items(target, [key, value])

    def load_setitems(self) -> None:
        """Set the items since the mark."""
        items, target = self.pop_mark(), self.stack[-1]
        self._set_items(target, items)

    def _set_items(self, target: Any, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        check_keys(keys)
        if isinstance(target, dict):
            for key, value in zip(keys, values, strict=True):
                target[key] = value
        elif type(target) is not Inert:
            raise UnsafePickleError(f"items are set on a {type(target).__name__}")

    def load_dict(self) -> None:
        """Make a dictionary of the items since the mark."""
        items = self.pop_mark()
        self.append({})
        self._set_items(self.stack[-1], items)

    def load_additems(self) -> None:
        """Add the items since the mark to a set."""
        items, target = self.pop_mark(), self.stack[-1]
        check_keys(items)
        if isinstance(target, set):
            set.update(target, items)
        elif type(target) is not Inert:
            raise UnsafePickleError(f"items are added to a {type(target).__name__}")

    def load_frozenset(self) -> None:
        """Make a frozenset of the items since the mark."""
        items = self.pop_mark()
        check_keys(items)
        self.append(frozenset(items))

    def load_bytearray8(self) -> None:
        """Read a bytearray; Python's own allocates before it looks how much is there."""
        n_bytes = int.from_bytes(self.read_bytes(8), "little")
        self.append(bytearray(self.read_bytes(n_bytes)))

    def read_bytes(self, n_bytes: int) -> bytes:
        """Read bytes of the stream itself, which may be framed."""
        content: bytes = self._unframer.read(n_bytes)
        if len(content) != n_bytes:
            raise UnsafePickleError(f"the file is truncated: {n_bytes} more bytes should follow, {len(content)} do")
        return content

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
    dispatch |= {code[0]: _refuse(what) for code, what in _REFUSED_OPCODES.items()}
