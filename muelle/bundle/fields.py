"""Checks for parsed JSON: each returns the value with its type known, or says which field is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from muelle.errors import ManifestError


def _got(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def document(data: bytes, where: str) -> Any:
    """Parse a whole JSON file; duplicate keys and non-finite numbers are refused.

    Raises
    ------
    ManifestError
        With the place of the fault.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ManifestError(f"{where}: {_got(twice)} stands twice in one object")
        return found

    def constant(name: str) -> Any:
        raise ManifestError(f"{where}: {name} is not JSON")

    def finite(digits: str) -> float:
        value = float(digits)
        if math.isinf(value):  # 1e400 is JSON, but no float
            raise ManifestError(f"{where}: {_got(digits)} is too large for a number")
        return value

    try:
        return json.loads(data, object_pairs_hook=pairs, parse_constant=constant, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: not JSON: {error}") from error


def mapping(value: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return an object that has exactly these keys."""
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: expected an object, got {_got(value)}")
    if missing := [key for key in keys if key not in value]:
        raise ManifestError(f"{where}: missing {', '.join(missing)}")
    if unknown := [key for key in value if key not in keys]:
        raise ManifestError(f"{where}: unknown {', '.join(map(str, unknown))}")
    return value


def free_mapping(value: object, where: str) -> dict[str, Any]:
    """Return an object with any keys."""
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: expected an object, got {_got(value)}")
    return value


def sequence(value: object, where: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise ManifestError(f"{where}: expected a list, got {_got(value)}")
    return value


def text(value: object, where: str, *, empty: bool = False) -> str:
    """Return a string, non-empty unless said otherwise."""
    if not isinstance(value, str) or not (value or empty):
        raise ManifestError(f"{where}: expected a string, got {_got(value)}")
    return value


def optional_text(value: object, where: str) -> str | None:
    """Return a non-empty string or None."""
    return None if value is None else text(value, where)


def choice(value: object, where: str, allowed: Sequence[str]) -> str:
    """Return one of the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        raise ManifestError(f"{where}: expected one of {', '.join(allowed)}, got {_got(value)}")
    return value


def boolean(value: object, where: str) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ManifestError(f"{where}: expected true or false, got {_got(value)}")
    return value


def integer(value: object, where: str, *, minimum: int = 0) -> int:
    """Return an integer of at least `minimum`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ManifestError(f"{where}: expected an integer of at least {minimum}, got {_got(value)}")
    return value


def number(value: object, where: str) -> float:
    """Return a finite number."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass  # an integer beyond all floats
    raise ManifestError(f"{where}: expected a number, got {_got(value)}")


def scalar(value: object, where: str) -> str | int | float | bool:
    """Return a string, number or boolean."""
    if not isinstance(value, str | int | float | bool):
        raise ManifestError(f"{where}: expected a string, number or boolean, got {_got(value)}")
    return value


def scalars(value: object, where: str) -> tuple[str | int | float | bool, ...]:
    """Return a list of strings, numbers or booleans as a tuple."""
    return tuple(scalar(item, f"{where}[{i}]") for i, item in enumerate(sequence(value, where)))
