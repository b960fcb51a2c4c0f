"""Pickle and joblib files: what they would import, and loading only what the allow-list lets through.

A file is followed twice by the same `muelle.bundle.pickle_walker.Walker`: `muelle.bundle.pickle_scan` finds every
global, with nothing imported or called, and only when `muelle.bundle.allowlist` allows them all does
`muelle.bundle.pickle_loader` make the real objects, each checked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from muelle.bundle import allowlist
from muelle.bundle.pickle_decompress import decompress
from muelle.bundle.pickle_loader import load_checked
from muelle.bundle.pickle_scan import scan_globals
from muelle.errors import EngineError, UnsafePickleError

_LISTED_NAMES: Final = 50


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
    names = scan_globals(decompress(data, "the pickle"), "the pickle")
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
    content = decompress(data, where)
    refused = allowlist.refused(scan_globals(content, where), allowed_modules)
    if refused:
        raise UnsafePickleError(_refusal(where, refused))
    try:
        return load_checked(content, allowed_modules)
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
