"""Pickle and joblib files: what they would import, and loading only what the allow-list lets through.

joblib writes the bytes of each numeric array in the middle of the pickle, right after the ``BUILD`` of a
``NumpyArrayWrapper``, and arrays of objects as a pickle within the pickle. To find every global, a file must be
followed as it would be loaded. `_Walker` does that for both passes, so that they can't disagree about what the stream
says: `_Scan` with inert stand-ins for all that the stream names and makes, `_Loader` with the real objects, each
checked against `muelle.bundle.allowlist` when it is found, called or given state.

joblib's own unpickler is not used: before 1.6 it reads arrays of objects with the plain ``pickle.load``, which imports
anything. ``numpy.dtype`` is not called with the stream's arguments either, nor given its state: that state can lie
about offsets and flags and so read arbitrary memory, and on a dtype that is not a copy it would change float64 for the
whole process.
"""

from __future__ import annotations

import bz2
import collections
import importlib
import io
import lzma
import math
import pickle
import re
import sys
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, NoReturn

import numpy as np

from muelle.bundle import allowlist
from muelle.errors import EngineError, UnsafePickleError

#: A compressed file may hold at most base + ratio * its size, and never more than the maximum, so that a small file
#: can't fill the memory. The ratio is just above the 1032:1 that zlib can reach, so a model of zeros passes; bz2 and xz
#: can reach far more, and are cut off there.
_DECOMPRESSED_BASE_BYTES: Final = 64 * 2**20
_DECOMPRESSED_RATIO: Final = 1040
_DECOMPRESSED_MAX_BYTES: Final = 8 * 2**30
#: Enough for every preset of xz (9 needs 65 MiB); the file's header may ask for up to 4 GiB.
_LZMA_MEMORY_BYTES: Final = 256 * 2**20
#: Longer names of modules and attributes only serve to blow up messages.
_NAME_LENGTH: Final = 255
#: Elements of a tuple that is a dictionary's key or a set's member, tuples within included. Hashing recurses on the C
#: stack without a limit, and takes exponential time when tuples hold the same tuple twice.
_KEY_ELEMENTS: Final = 1000
_DTYPE_FIELDS: Final = 255
_ALIGNED_STRUCT_FLAG: Final = 0x80
_DTYPE_CODE: Final = re.compile(r"[biufcmMOSUV]\d{1,9}", re.ASCII)
_TIME_UNIT: Final = re.compile(r"[A-Za-z]{1,7}", re.ASCII)
_LISTED_NAMES: Final = 50

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


def scan_pickle(data: bytes) -> tuple[str, ...]:
    """List the globals that a pickle or joblib file would import, without importing or calling any.

    Parameters
    ----------
    data : bytes
        The file, compressed or not.

    Returns
    -------
    tuple of str
        ``module.name`` of each global, sorted, without repetition.

    Raises
    ------
    UnsafePickleError
        When the file can't be followed to its end: malformed or truncated, persistent ids, extension registry codes,
        out-of-band buffers, files of joblib 0.9 or older, or more decompressed bytes than allowed.
    """
    names = _scan(_decompress(data, "the pickle"), "the pickle")
    return tuple(sorted(f"{module}.{name}" for module, name in names))


def load_pickle(data: bytes, where: str, allowed_modules: Sequence[str] = ()) -> Any:
    """Load a pickle or joblib file of which every global is allowed.

    Parameters
    ----------
    data : bytes
        The file, compressed or not.
    where : str
        The file's name, for messages.
    allowed_modules : sequence of str
        Modules that the operator trusts, as their own or as the package of others.

    Raises
    ------
    UnsafePickleError
        When the file can't be followed, or asks for something that is not allowed. Unless the message says that it was
        met while loading, nothing of the pickle was imported or called.
    EngineError
        When all is allowed, but an object can't be rebuilt.
    """
    content = _decompress(data, where)
    refused = allowlist.refused(_scan(content, where), allowed_modules)
    if refused:
        raise UnsafePickleError(_refusal(where, refused))
    try:
        return _Loader(io.BytesIO(content), allowed_modules).read()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: met while loading: {error}") from error
    except Exception as error:
        raise EngineError(f"{where} can't be loaded: {type(error).__name__}: {error}") from error


def _refusal(where: str, refused: Sequence[str]) -> str:
    names = [name if name.isprintable() else ascii(name) for name in refused[:_LISTED_NAMES]]
    if len(refused) > len(names):
        names.append(f"and {len(refused) - len(names)} more")
    message = (
        f"{where} asks for what is not on the allow-list: {', '.join(names)}. Nothing of it was imported or called. An "
        "operator who trusts a module with running code can allow it by name, in MUELLE_ALLOWED_MODULES or with "
        "--allow-module"
    )
    if any(name.startswith("scipy.stats.") for name in refused):
        message += "; a fitted search that holds distributions is better saved as its best_estimator_"
    if any(name.startswith("pandas.") for name in refused):
        message += "; columns given to a ColumnTransformer as a pandas Index are better given as a list"
    return message


def _scan(content: bytes, where: str) -> set[allowlist.Name]:
    scan = _Scan(io.BytesIO(content))
    try:
        scan.read()
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: {error}") from error
    except Exception as error:
        raise UnsafePickleError(
            f"{where} is not a complete pickle or joblib file: {type(error).__name__}: {error}"
        ) from error
    return scan.found


def _lz4_decompressor() -> Any:
    try:
        return importlib.import_module("lz4.frame").LZ4FrameDecompressor()
    except ImportError as error:
        raise UnsafePickleError("the file is compressed with lz4, which is not installed here") from error


#: The first bytes by which joblib knows a compressed file, and what reads it.
_DECOMPRESSORS: Final[Sequence[tuple[bytes, Callable[[], Any]]]] = (
    (b"\x78", zlib.decompressobj),
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZ", bz2.BZ2Decompressor),
    (b"\x5d\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES)),
    (b"\xfd7zXZ", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES)),
    (b'\x04"M\x18', _lz4_decompressor),
)


def _decompress(data: bytes, where: str) -> bytes:
    """Return the pickle stream of a file, decompressed within bounds when it is compressed."""
    if data.startswith(b"ZF"):
        raise UnsafePickleError(f"{where} was written by joblib 0.9 or older, which is not supported")
    make = next((make for prefix, make in _DECOMPRESSORS if data.startswith(prefix)), None)
    if make is None:
        return data
    limit = min(_DECOMPRESSED_MAX_BYTES, _DECOMPRESSED_BASE_BYTES + _DECOMPRESSED_RATIO * len(data))
    try:
        decompressor = make()
        content: bytes = decompressor.decompress(data, limit + 1)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{where}: {error}") from error
    except Exception as error:
        raise UnsafePickleError(f"{where} can't be decompressed: {type(error).__name__}: {error}") from error
    if len(content) > limit:
        raise UnsafePickleError(f"{where} holds more than the {limit} decompressed bytes that its size allows")
    if not decompressor.eof or decompressor.unused_data:
        raise UnsafePickleError(f"{where} can't be decompressed: it is truncated, or something follows its end")
    return content


def _refuse(what: str) -> Callable[[Any], NoReturn]:
    def load_refused(walker: object) -> NoReturn:
        raise UnsafePickleError(f"the pickle uses {what}, which is not supported")

    return load_refused


class _Inert:
    """Stands in a scan for whatever the stream names or makes."""

    __slots__ = ()


class _ArrayWrapper:
    """Stands for ``joblib.numpy_pickle.NumpyArrayWrapper``, after whose state an array follows in the file."""

    __slots__ = ()


class _ArrayType:
    """Stands for ``numpy.ndarray``, which only rebuilding functions may see.

    Left in a model, it could be called with a buffer of its own as elements, and so read arbitrary memory.
    """

    __slots__ = ()


class _DtypeMaker:
    """Stands for ``numpy.dtype`` itself, and for a dtype between its creation and its state."""

    __slots__ = ("code", "dtype")

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype: np.dtype[Any] | None = None


def _encode(characters: Any, encoding: Any) -> bytes:
    """Stand for ``_codecs.encode``, by which protocols before 3 write bytes, those of a dtype's state among them."""
    if type(characters) is not str or encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError("_codecs.encode is called with something else than bytes as Latin-1")
    return characters.encode("latin-1")


def _dtype_maker(args: tuple[Any, ...]) -> _DtypeMaker:
    """Check the call of ``numpy.dtype`` as numpy pickles it: a code, no alignment, a copy."""
    if len(args) != 3 or type(args[0]) is not str or not _DTYPE_CODE.fullmatch(args[0]) or args[1:] != (False, True):
        raise UnsafePickleError("numpy.dtype is called with something else than a plain type's code")
    return _DtypeMaker(args[0])


def _build_dtype(code: str, state: Any) -> np.dtype[Any]:
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
        if not allowlist.is_shape(shape):  # numpy reads other second elements as a dtype to reinterpret the first by
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


def _check_keys(keys: Iterable[Any]) -> None:
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


class _Memo(dict[int, Any]):
    """The objects that a stream may refer to again, with each dtype in its finished form."""

    def __getitem__(self, key: int) -> Any:
        value = super().__getitem__(key)
        if type(value) is _DtypeMaker:
            value = value.dtype
        if value is None or type(value) is _ArrayWrapper:
            # None is pickled by an opcode of its own and never memoized.
            raise UnsafePickleError(f"memo entry {key} is used before it is complete")
        return value


class _Walker(pickle._Unpickler):
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
        self.memo = _Memo()
        self.found: set[allowlist.Name] = set()

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
            or not allowlist.is_shape(shape)
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
        module, name = allowlist.real_name(module, name)
        if len(module) > _NAME_LENGTH or len(name) > _NAME_LENGTH:
            raise UnsafePickleError(f"a global's name is longer than {_NAME_LENGTH} characters")
        self.found.add((module, name))
        if (module, name) == ("numpy", "dtype"):
            return _DtypeMaker
        if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
            return _ArrayWrapper
        if (module, name) == ("_codecs", "encode"):
            return _encode
        return self.resolve(module, name)

    def load_reduce(self) -> None:
        """Call a function."""
        args, function = self.stack.pop(), self.stack.pop()
        if type(args) is not tuple:
            raise UnsafePickleError("a call's arguments are not a tuple")
        if function is _DtypeMaker:
            self.append(_dtype_maker(args))
        elif function is _encode:
            self.append(_encode(*args))
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
        if kind is _ArrayWrapper and not args and not kwargs:
            self.append(_ArrayWrapper())
        else:
            self.append(self.construct(kind, args, kwargs))

    def load_build(self) -> None:
        """Give an instance its state; an array takes the place of its wrapper, a dtype that of its maker."""
        state, instance = self.stack.pop(), self.stack[-1]
        if type(instance) is _ArrayWrapper:
            self.stack[-1] = self.load_array(state)
        elif type(instance) is _DtypeMaker:
            instance.dtype = self.stack[-1] = _build_dtype(instance.code, state)
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
        elif type(target) is not _Inert:
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
        _check_keys(keys)
        if isinstance(target, dict):
            for key, value in zip(keys, values, strict=True):
                target[key] = value
        elif type(target) is not _Inert:
            raise UnsafePickleError(f"items are set on a {type(target).__name__}")

    def load_dict(self) -> None:
        """Make a dictionary of the items since the mark."""
        items = self.pop_mark()
        self.append({})
        self._set_items(self.stack[-1], items)

    def load_additems(self) -> None:
        """Add the items since the mark to a set."""
        items, target = self.pop_mark(), self.stack[-1]
        _check_keys(items)
        if isinstance(target, set):
            set.update(target, items)
        elif type(target) is not _Inert:
            raise UnsafePickleError(f"items are added to a {type(target).__name__}")

    def load_frozenset(self) -> None:
        """Make a frozenset of the items since the mark."""
        items = self.pop_mark()
        _check_keys(items)
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


class _Scan(_Walker):
    """Finds the globals: everything else comes to an inert stand-in."""

    def resolve(self, module: str, name: str) -> Any:
        return _Inert()

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        return _Inert()

    def construct(self, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return _Inert()

    def set_state(self, instance: Any, state: Any) -> None:
        pass

    def take_numbers(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:
        self.file.seek(math.prod(shape) * dtype.itemsize, io.SEEK_CUR)
        return _Inert()

    def take_objects(self, shape: tuple[int, ...]) -> Any:
        inner = _Scan(self.file, is_nested=True)
        inner.found = self.found
        inner.read()
        return _Inert()


class _Loader(_Walker):
    """Makes the real objects, asking the allow-list before each global, call, instance and state."""

    def __init__(self, file: io.BytesIO, allowed_modules: Sequence[str], *, is_nested: bool = False) -> None:
        super().__init__(file, is_nested=is_nested)
        self.allowed_modules = allowed_modules
        # Only what was resolved may be called. The objects are kept, so that no identity is used again.
        self._resolved: dict[int, tuple[allowlist.Name, Any]] = {}
        self._built: dict[int, Any] = {}

    def resolve(self, module: str, name: str) -> Any:
        refused = allowlist.refused([(module, name)], self.allowed_modules)
        if refused:
            raise UnsafePickleError(f"{refused[0]} is not on the allow-list")
        sys.audit("pickle.find_class", module, name)
        found = getattr(importlib.import_module(module), name)
        allowlist.check_resolved(module, name, found, self.allowed_modules)
        # joblib's workers leave memmaps in estimators; their elements are in the file all the same.
        if found is np.ndarray or found is np.memmap:
            return _ArrayType
        self._resolved[id(found)] = (module, name), found
        return found

    def _name(self, function: Any) -> allowlist.Name:
        try:
            return self._resolved[id(function)][0]
        except KeyError:
            raise UnsafePickleError(f"the pickle calls a {type(function).__name__} that is not a global") from None

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        args = tuple(np.ndarray if value is _ArrayType else value for value in args)
        allowlist.check_call(*self._name(function), args, self.allowed_modules)
        if function in (set, frozenset):
            for items in args:
                _check_keys(items)
        return function(*args)

    def construct(self, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        allowlist.check_construction(*self._name(kind), args, kwargs, self.allowed_modules)
        return kind.__new__(kind, *args, **kwargs)

    def set_state(self, instance: Any, state: Any) -> None:
        if id(instance) in self._resolved or id(instance) in self._built:
            raise UnsafePickleError(f"state is given to a {type(instance).__name__} that is complete")
        allowlist.check_state(instance, state, self.allowed_modules)
        self._built[id(instance)] = instance
        # Looked up on the class: an attribute of the instance may come from the stream.
        set_state = getattr(type(instance), "__setstate__", None)
        if set_state is not None:
            set_state(instance, state)
            return
        slots = None
        if isinstance(state, tuple) and len(state) == 2:
            state, slots = state
        for name, value in (state or {}).items():
            instance.__dict__[sys.intern(name)] = value
        for name, value in (slots or {}).items():
            setattr(instance, name, value)

    def take_numbers(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:
        flat: np.ndarray[Any, np.dtype[Any]] = np.empty(math.prod(shape), dtype)
        self.file.readinto(flat.view(np.uint8).data)
        array = flat.reshape(shape[::-1]).transpose() if order == "F" else flat.reshape(shape)
        return array if dtype.isnative else array.astype(dtype.newbyteorder("="))

    def take_objects(self, shape: tuple[int, ...]) -> Any:
        inner = _Loader(self.file, self.allowed_modules, is_nested=True)
        array = inner.read()
        if not isinstance(array, np.ndarray) or array.shape != shape:
            raise UnsafePickleError("an array of objects is something else than its description")
        return array
