"""The second pass over a pickle: the real objects, each checked when it is found, called or given state."""

from __future__ import annotations

import importlib
import io
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from muelle.bundle import allowlist
from muelle.bundle.pickle_values import ArrayType, check_keys
from muelle.bundle.pickle_walker import Walker
from muelle.errors import UnsafePickleError


def load_checked(content: bytes, allowed_modules: Sequence[str] = ()) -> Any:
    """Load a decompressed pickle, asking the allow-list at every step.

    This alone refuses what the scan before it refuses, but only when it comes to it, after what stands before.

    Raises
    ------
    UnsafePickleError
        When the stream asks for something that is not allowed, or can't be followed. Whatever else an allowed call
        raises comes through as it is.
    """
    return _Loader(io.BytesIO(content), allowed_modules).read()


class _Loader(Walker):
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
            return ArrayType
        self._resolved[id(found)] = (module, name), found
        return found

    def _name(self, function: Any) -> allowlist.Name:
        try:
            return self._resolved[id(function)][0]
        except KeyError:
            raise UnsafePickleError(f"the pickle calls a {type(function).__name__} that is not a global") from None

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        args = tuple(np.ndarray if value is ArrayType else value for value in args)
        allowlist.check_call(*self._name(function), args, self.allowed_modules)
        if function in (set, frozenset):
            for items in args:
                check_keys(items)
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
