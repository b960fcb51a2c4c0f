"""Large JSON bodies of numbers, straight into an array.

pysimdjson copies all numbers of a nested list into one buffer, several times faster than making Python floats first. It
flattens, so the shape is proved apart: when every row has `width` items, and there are just as many opening brackets as
the rows and the list around them need, then no item of a row is itself a list.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import simdjson

from muelle.bundle.data import Array

_OPEN: Final = ord("[")

# A parser's buffers are reused, and its documents die with the next parse: one a thread.
_local = threading.local()


def large_matrix(body: bytes, width: int) -> tuple[str, Array] | None:
    """Return ``{"features": rows}`` or ``{"input": rows}`` as field and ``(n_samples, width)`` float64 array.

    Anything else, valid or not, gives None: the careful way then accepts it, or says what is wrong with it.
    """
    # No strings, and no second key: no third quotation mark. find() is ten times faster than any counting.
    if body.find(b'"', body.find(b'"', body.find(b'"') + 1) + 1) != -1:
        return None
    try:
        parser = _local.parser
    except AttributeError:
        parser = _local.parser = simdjson.Parser()
    try:
        document = parser.parse(body)
        field = next(key for key in ("features", "input") if key in document)
        rows = document[field]
        count = len(rows)
        widths = set(map(len, rows))
        # Only numbers convert: true, null, objects and out-of-range numbers raise.
        flat = np.frombuffer(rows.as_buffer(of_type="d"), dtype=np.float64)
    except (ValueError, TypeError, RuntimeError, StopIteration, AttributeError):
        return None
    finally:
        # The parser refuses to parse again while anything of its last document is alive.
        document = rows = None
    # numpy counts bytes five times faster than bytes.count().
    lists = np.count_nonzero(np.frombuffer(body, dtype=np.uint8) == _OPEN)
    if widths != {width} or lists != count + 1 or flat.size != count * width:
        return None
    return field, flat.reshape(count, width)
