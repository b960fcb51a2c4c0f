"""The first pass over a pickle: which globals it names, with inert stand-ins for all that it names and makes."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from muelle.bundle.allowlist import Name
from muelle.bundle.pickle_values import Inert
from muelle.bundle.pickle_walker import Walker
from muelle.errors import UnsafePickleError


def scan_globals(content: bytes, where: str) -> set[Name]:
    """Return the globals that a decompressed pickle would import; nothing is imported or called.

    Raises
    ------
    UnsafePickleError
        When the stream can't be followed to its end; the message starts with `where`.
    """
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


class _Scan(Walker):
    """Finds the globals: everything else comes to an inert stand-in."""

    def resolve(self, module: str, name: str) -> Any:
        return Inert()

    def call(self, function: Any, args: tuple[Any, ...]) -> Any:
        return Inert()

    def construct(self, kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return Inert()

    def set_state(self, instance: Any, state: Any) -> None:
        pass

    def take_numbers(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:
        self.file.seek(math.prod(shape) * dtype.itemsize, io.SEEK_CUR)
        return Inert()

    def take_objects(self, shape: tuple[int, ...]) -> Any:
        inner = _Scan(self.file, is_nested=True)
        inner.found = self.found
        inner.read()
        return Inert()
