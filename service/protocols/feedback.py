"""Labels that became known later: ``POST /feedback``'s request, one object or a list of them, checked as a whole."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from muelle.bundle.signature import Scalar
from muelle.errors import InputError
from muelle.inference.rows import shown
from service.exchange import REQUEST_ID
from service.protocols.json_body import parse_json

#: The most labels in one request.
MOST_LABELS: Final = 1_000
#: The longest text that a label may be; a class has a short name.
MOST_CHARACTERS: Final = 1_024
#: How far a sender's clock may be ahead of ours.
AHEAD_SECONDS: Final = 3600.0
#: The last row that there can be.
MOST_ROW: Final = 2**31 - 1
_FIELDS: Final = ("request_id", "row", "label", "observed_at")
#: What JSON writers and Parquet can hold as a whole number, and as any number.
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_LARGEST_NUMBER: Final = int(sys.float_info.max)
#: RFC 3339, section 5.6: unlike ISO 8601 it wants a zone, and has no weeks.
_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)


class Label(NamedTuple):
    """What turned out to be true of one row that was predicted.

    Attributes
    ----------
    request_id : str
        The X-Request-Id of the prediction's answer.
    row : int
        Which row of that request, from 0.
    label : str, int, float or bool
        The class, or the number, that came true; finite.
    observed_at : float
        When that was known; Unix time, seconds.
    """

    request_id: str
    row: int
    label: Scalar
    observed_at: float


def decode(body: bytes, clock: Callable[[], float] = time.time) -> list[Label]:
    """Parse and check a body.

    Parameters
    ----------
    body : bytes
        JSON: an object, or a list of 1 to `MOST_LABELS` objects.
    clock : callable
        Unix time, seconds: the default of ``observed_at``, and what it may not be ahead of.

    Raises
    ------
    InputError
        With the place of the first fault, such as ``[3].row``.
    """
    document = parse_json(body)
    now = clock()
    if type(document) is dict:
        return [_label(document, "", now)]
    if type(document) is not list:
        raise InputError(
            'expected an object such as {"request_id": "…", "label": 1} or a list of them, got ' + shown(document),
            code="invalid_shape",
        )
    if not 1 <= len(document) <= MOST_LABELS:
        raise InputError(f"expected 1 to {MOST_LABELS} labels, got {len(document)}", code="invalid_shape")
    return [_label(item, f"[{place}]", now) for place, item in enumerate(document)]


def encode(labels: Sequence[Label]) -> bytes:
    """Return a request's body that says the same."""
    return orjson.dumps(
        [
            {
                "request_id": label.request_id,
                "row": label.row,
                "label": label.label,
                "observed_at": datetime.fromtimestamp(label.observed_at, UTC).isoformat(),
            }
            for label in labels
        ]
    )


def _label(item: Any, where: str, now: float) -> Label:
    if type(item) is not dict:
        raise InputError(f"expected an object, got {shown(item)}", code="invalid_shape", where=where)
    if unknown := [key for key in item if key not in _FIELDS]:
        listed = ", ".join(shown(key) for key in unknown[:5])
        message = f"unknown field {listed}; known are {', '.join(_FIELDS)}"
        raise InputError(message, code="unknown_field", where=where)
    if missing := [key for key in ("request_id", "label") if key not in item]:
        raise InputError(f"missing {', '.join(missing)}", code="missing_field", where=where)
    inside = f"{where}." if where else ""
    return Label(
        _request_id(item["request_id"], f"{inside}request_id"),
        _row(item.get("row", 0), f"{inside}row"),
        _value(item["label"], f"{inside}label"),
        _observed_at(item["observed_at"], f"{inside}observed_at", now) if "observed_at" in item else now,
    )


def _request_id(value: Any, where: str) -> str:
    if type(value) is not str or REQUEST_ID.fullmatch(value) is None:
        raise _invalid("the X-Request-Id of an answer", value, where)
    return value


def _row(value: Any, where: str) -> int:
    if type(value) is float and value.is_integer():
        # To JSON 2.0 is as whole as 2.
        value = int(value)
    if type(value) is not int or not 0 <= value <= MOST_ROW:
        raise _invalid(f"a whole number from 0 to {MOST_ROW}", value, where)
    return value


def _value(value: Any, where: str) -> Scalar:
    if type(value) is bool:
        return value
    if type(value) is str:
        if len(value) > MOST_CHARACTERS:
            message = f"expected at most {MOST_CHARACTERS} characters, got {len(value)}"
            raise InputError(message, code="invalid_value", where=where)
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) <= _LARGEST_NUMBER:
        # A longer one as the fast parser has it.
        return value if _SMALLEST <= value <= _LARGEST else float(value)
    raise _invalid("a finite number, a string, true or false", value, where)


def _observed_at(value: Any, where: str, now: float) -> float:
    expected = "a time with its zone, such as 2026-01-31T12:00:00Z (RFC 3339)"
    if type(value) is not str or _TIME.fullmatch(value) is None:
        raise _invalid(expected, value, where)
    try:
        seconds = datetime.fromisoformat(value.upper()).timestamp()
    except (ValueError, OverflowError):
        # The 30th of February, an hour 25, a zone of a hundred hours.
        raise _invalid(expected, value, where) from None
    if seconds < 0:
        raise _invalid("a time from 1970 on", value, where)
    if seconds > now + AHEAD_SECONDS:
        raise _invalid("a time that has come", value, where)
    return seconds


def _invalid(expected: str, value: Any, where: str) -> InputError:
    return InputError(f"expected {expected}, got {shown(value)}", code="invalid_value", where=where)
