"""Strict JSON at the speed of a lenient parser.

orjson keeps the last of two equal keys, which would hide a mistyped feature. Each key has a colon behind it, so a body
with exactly as many colons as keys that survived has no duplicates; only when the counts differ (a colon inside a
string, or a duplicate) is the body parsed again by the slower parser that sees every pair.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import orjson

from muelle.errors import InputError


def parse_json(body: bytes) -> Any:
    """Parse a body.

    Raises
    ------
    InputError
        ``invalid_json`` with the place of the fault, or ``duplicate_name``.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_strictly(body)
    colons = body.count(b":")
    # Without a walk through all rows when the keys of the outermost object are all there can be.
    if not (type(document) is dict and colons == len(document)) and colons != count_keys(document):
        return parse_strictly(body)
    return document


def count_keys(value: Any) -> int:
    """Return how many keys all objects of a parsed document have together."""
    count = 0
    # A stack of our own: orjson takes bodies that are nested more deeply than Python's allows.
    left = [value] if type(value) in (dict, list) else []
    while left:
        item = left.pop()
        if type(item) is dict:
            count += len(item)
            item = item.values()
        # Rows of numbers, the bulk of a body, are passed over at the speed of map().
        kinds = set(map(type, item))
        if dict in kinds or list in kinds:
            left += [child for child in item if type(child) in (dict, list)]
    return count


def parse_strictly(body: bytes) -> Any:
    """Parse a body with every check; slower. Raises as `parse_json`."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise InputError(f'the name "{key[:60]}" stands twice in one object', code="duplicate_name")
            found[key] = value
        return found

    def constant(name: str) -> NoReturn:
        raise InputError(f"{name} is not JSON; send null for a missing value", code="invalid_json")

    if not body:
        raise InputError("the body is empty; expected JSON", code="invalid_json")
    try:
        # Decoded here: json.loads would guess UTF-16 and UTF-32 too, and let half a surrogate pair through.
        text = body.decode("utf-8-sig")
        document = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        message = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise InputError(message, code="invalid_json") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the body is not JSON: byte {error.start} is not UTF-8", code="invalid_json") from error
    except UnicodeEncodeError as error:
        raise InputError("the body has a string with half a surrogate pair", code="invalid_json") from error
    except RecursionError as error:
        raise InputError("the body is nested too deeply", code="invalid_json") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InputError("the body holds a number of too many digits", code="invalid_json") from error
    return document
