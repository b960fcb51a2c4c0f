"""skops files: the same allow-list, enforced by skops' own audit before anything is constructed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muelle.bundle.allowlist import refused
from muelle.errors import EngineError, UnsafePickleError


def scan_skops(data: bytes, where: str) -> tuple[str, ...]:
    """Return the types that skops does not trust by itself, sorted; nothing is constructed.

    Raises
    ------
    EngineError
        When it is not a skops file, or skops is not installed.
    """
    try:
        from skops.io import get_untrusted_types
    except ImportError as error:
        raise EngineError(f"{where}: skops is not installed; pip install 'muelle[skops]'") from error
    try:
        return tuple(sorted(get_untrusted_types(data=data)))
    except Exception as error:  # zip, JSON and skops' own errors alike
        raise EngineError(f"{where}: not a readable skops file: {error}") from error


def load_skops(data: bytes, where: str, allowed_modules: Sequence[str] = ()) -> Any:
    """Load a skops file whose every type is trusted by skops or allowed by us.

    Raises
    ------
    UnsafePickleError
        With the types that are refused; nothing was constructed.
    EngineError
        When it can't be loaded.
    """
    untrusted = scan_skops(data, where)
    pairs = [(name.rpartition(".")[0], name.rpartition(".")[2]) for name in untrusted]
    if bad := refused(pairs, allowed_modules):
        raise UnsafePickleError(f"{where}: asks for {', '.join(bad)}, not on the allow-list; nothing was constructed")
    from skops.io import loads

    try:
        return loads(data, trusted=list(untrusted))
    except Exception as error:  # as above
        raise EngineError(f"{where}: skops can't load it: {error}") from error


def dump_skops(estimator: Any) -> bytes:
    """Return an estimator as a skops file.

    Raises
    ------
    EngineError
        When skops is not installed or can't represent it.
    """
    try:
        from skops.io import dumps
    except ImportError as error:
        raise EngineError("skops is not installed; pip install 'muelle[skops]'") from error
    try:
        return bytes(dumps(estimator))
    except Exception as error:  # as above
        raise EngineError(f"skops can't write {type(estimator).__name__}: {error}") from error
