"""The bodies of error answers, for Flask's handlers and for the worker that answers below Flask."""

from __future__ import annotations

import orjson


def error_body(message: str, code: str, *, v2: bool) -> bytes:
    """Return an error's body: the Open Inference Protocol knows only ``error``, the simple API has a code too."""
    return orjson.dumps({"error": message} if v2 else {"error": message, "code": code})
