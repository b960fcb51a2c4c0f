"""JSON-like rows → validated columns, a column at a time in C; Python looks at single cells only to name a bad one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import numpy as np

from muelle.bundle.data import NUMPY_DTYPES, Array, Data, column_array
from muelle.bundle.signature import NUMBERS, Feature, Signature
from muelle.errors import InputError

_INT64: Final = np.iinfo(np.int64)
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
#: The types that need no second look, by dtype.
_EASY: Final[Mapping[str, frozenset[type]]] = {
    "float64": frozenset({float, int}),
    "float32": frozenset({float, int}),
    "int64": frozenset({int}),
    "bool": frozenset({bool}),
    "string": frozenset({str}),
}
_EXPECTED: Final = {
    "float64": "a number",
    "float32": "a number",
    "int64": "an integer",
    "bool": "true or false",
    "string": "a string",
}


def rows_to_data(signature: Signature, rows: Sequence[Any], where: str = "features") -> Data:
    """Convert a batch of rows, each a list in the signature's order or an object keyed by feature name.

    Parameters
    ----------
    signature : Signature
        What is allowed.
    rows : sequence of n_samples lists or dicts
        As a JSON parser returns them.
    where : str
        The rows' place in the body, for messages.

    Returns
    -------
    Data
        n_samples rows in the signature's layout.

    Raises
    ------
    InputError
        With the first bad place: ``features[2][3]``, or ``features[2].age`` for objects.
    """
    if not rows:
        raise InputError("expected at least one row, got an empty list", code="empty_batch", where=where)
    kinds = set(map(type, rows))
    named = kinds == {dict}
    if named:
        table = _named_rows(signature, rows, where)
    elif kinds == {list}:
        table = _listed_rows(signature, rows, where)
    else:
        _explain_kinds(rows, where)
    found: dict[str, Array] = {}
    for i, (feature, values) in enumerate(zip(signature.inputs, zip(*table, strict=True), strict=True)):
        place = f".{feature.name}" if named else f"[{i}]"
        found[feature.name] = values_to_column(feature, values, lambda row, place=place: f"{where}[{row}]{place}")
    return to_layout(signature, found)


def to_layout(signature: Signature, found: Mapping[str, Array]) -> Data:
    """Put validated columns, each ``(n_samples,)``, into the signature's layout."""
    if signature.layout != "matrix":
        return found
    return np.column_stack(list(found.values())).astype(NUMPY_DTYPES[signature.inputs[0].dtype], copy=False)


def values_to_column(feature: Feature, values: Sequence[Any], place: Any) -> Array:
    """Convert one column's values.

    Parameters
    ----------
    feature : Feature
        What is allowed.
    values : sequence of n_samples values
        As a JSON parser returns them.
    place : callable
        Row number to the value's place in the body.

    Returns
    -------
    array of shape (n_samples,)
        See `muelle.bundle.data`.
    """
    types = set(map(type, values))
    easy = _EASY[feature.dtype]
    if feature.nullable and feature.dtype != "int64":  # beside a missing one integers become floats, which hold more
        easy |= {type(None)}
    if not types <= easy:
        values = _checked(feature, values, place)
    try:
        with np.errstate(over="ignore"):  # a float32 that overflows is seen below
            column = column_array(feature, list(values))
        bad = np.isinf if feature.nullable else _is_not_finite
        in_range = column.dtype.kind != "f" or not bad(column).any()
    except (OverflowError, ValueError):
        in_range = False
    if not in_range:
        # Rare; the slow look says which value it is.
        column = column_array(feature, _checked(feature, values, place))
    if feature.categories is not None:
        _check_categories(feature, column.tolist(), place)
    return column


def wrong_count(signature: Signature, got: int, where: str) -> InputError:
    """Return the error for a row of the wrong length; it names the first features that were expected."""
    names = ", ".join(signature.names[:40]) + (", …" if len(signature.names) > 40 else "")
    expected = "1 feature" if len(signature.names) == 1 else f"{len(signature.names)} features"
    return InputError(f"expected {expected}, got {got}; in order: {names}", code="wrong_feature_count", where=where)


def shown(value: object) -> str:
    """Return a value as a message shows it: JSON's words, cut after 40 characters."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "a number that is not finite"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int):
        # Python refuses to print integers of over 4,300 digits.
        return str(value) if value.bit_length() < 256 else f"an integer of {value.bit_length()} bits"
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _listed_rows(signature: Signature, rows: Sequence[list[Any]], where: str) -> Sequence[Sequence[Any]]:
    expected = len(signature.inputs)
    if set(map(len, rows)) != {expected}:
        bad = next(i for i, row in enumerate(rows) if len(row) != expected)
        raise wrong_count(signature, len(rows[bad]), f"{where}[{bad}]")
    return rows


def _named_rows(signature: Signature, rows: Sequence[dict[str, Any]], where: str) -> Sequence[Sequence[Any]]:
    names = signature.names
    get = itemgetter(*names)
    try:
        table = list(map(get, rows))
    except KeyError:
        table = []
    if not table or set(map(len, rows)) != {len(names)}:
        _explain_names(signature, rows, where)
    return table if len(names) > 1 else [(value,) for value in table]


def _explain_names(signature: Signature, rows: Sequence[dict[str, Any]], where: str) -> None:
    known = set(signature.names)
    for i, row in enumerate(rows):
        if missing := [name for name in signature.names if name not in row]:
            raise InputError(f"missing {', '.join(missing[:40])}", code="missing_feature", where=f"{where}[{i}]")
        if unknown := [name for name in row if name not in known]:
            listed = ", ".join(shown(name) for name in unknown[:5])
            raise InputError(f"unknown feature {listed}", code="unknown_feature", where=f"{where}[{i}]")


def _explain_kinds(rows: Sequence[Any], where: str) -> None:
    first = type(rows[0])
    for i, row in enumerate(rows):
        if not isinstance(row, list | dict):
            message = f"expected a row (a list or an object), got {shown(row)}"
            raise InputError(message, code="invalid_shape", where=f"{where}[{i}]")
        if type(row) is not first:
            message = "expected all rows to be lists or all to be objects"
            raise InputError(message, code="invalid_shape", where=f"{where}[{i}]")


def _checked(feature: Feature, values: Sequence[Any], place: Any) -> list[Any]:
    """Check cell by cell; NaN counts as missing where that is allowed."""
    return [_cell(feature, value, row, place) for row, value in enumerate(values)]


def _cell(feature: Feature, value: Any, row: int, place: Any) -> Any:
    if value is None or (type(value) is float and math.isnan(value)):
        if feature.nullable:
            return None
        raise InputError(
            f"expected {_EXPECTED[feature.dtype]}, got {shown(value)}", code="invalid_value", where=place(row)
        )
    kind = type(value)
    if feature.dtype == "string":
        fine = kind is str
    elif feature.dtype == "bool":
        fine = kind is bool
    elif feature.dtype == "int64":
        # 6.0 says the same as 6; 6.5 does not.
        if kind is float and value.is_integer() and abs(value) < 2.0**63:
            # At -2^63 itself the float may be what a parser made of a larger integer.
            value = int(value)
        fine = type(value) is int and _INT64.min <= value <= _INT64.max
    else:
        fine = kind in (int, float) and _is_finite(value, feature.dtype)
    if not fine:
        expected = _EXPECTED[feature.dtype]
        if kind in (int, float) and feature.dtype in NUMBERS:
            expected = "an integer of 64 bits" if feature.dtype == "int64" else f"a finite {feature.dtype} number"
        raise InputError(f"expected {expected}, got {shown(value)}", code="invalid_value", where=place(row))
    return value


def _is_not_finite(column: Array) -> Array:
    return ~np.isfinite(column)


def _is_finite(value: int | float, dtype: str) -> bool:
    try:
        size = abs(float(value))
    except OverflowError:
        return False
    return size <= _FLOAT32_MAX if dtype == "float32" else math.isfinite(size)


def _check_categories(feature: Feature, values: Sequence[Any], place: Any) -> None:
    categories = feature.categories or ()
    known = frozenset(categories)
    for row, value in enumerate(values):
        missing = value is None or (type(value) is float and math.isnan(value))
        if not missing and value not in known:
            listed = ", ".join(shown(item) for item in categories[:20])
            raise InputError(f"expected one of {listed}, got {shown(value)}", code="unknown_category", where=place(row))
