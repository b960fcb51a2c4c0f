"""From the lines of a segment to Parquet: one table for each model version, or the labels, and each hour."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from service.prediction_lines import CONFIDENCE, PREDICT, PROBABILITIES, Layout

#: In front of the features' names, so that none of them can be one of our columns.
FEATURE_PREFIX: Final = "x_"
#: The folder of the labels; readers of whole folders pass over names that start so.
LABELS_FOLDER: Final = "_feedback"
#: Of the columns, and of the files' own metadata beside them.
FORMAT: Final = 1
METADATA_KEY: Final = b"muelle"

_TIME: Final = pa.timestamp("us", tz="UTC")
_TYPES: Final = {
    "float64": pa.float64(),
    "float32": pa.float32(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
_LABELS: Final = pa.schema(
    [
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("label", pa.string()),
        ("observed_at", _TIME),
        ("received_at", _TIME),
    ],
    metadata={METADATA_KEY: orjson.dumps({"format": FORMAT})},
)
_HOUR: Final = 3_600_000_000
#: How a line of rows starts, whole or not.
_START: Final = re.compile(rb'\{"m":(\d+),"n":(\d+),')


class Lost(NamedTuple):
    """A line that can't be read: cut off when its writer died, or damaged."""

    layout: Layout | None
    rows: int


class File(NamedTuple):
    """One Parquet file.

    Attributes
    ----------
    folder : str
        Where it belongs.
    data : bytes
        Its content, the same each time for the same segment.
    layout : Layout, optional
        What its rows are of; None for labels.
    """

    folder: str
    data: bytes
    rows: int
    layout: Layout | None


def convert(segment: BinaryIO) -> tuple[list[File], list[Lost]]:
    """Return the Parquet files that a segment becomes, and what of it could not be read."""
    layouts: dict[int, Layout] = {}
    lost: list[Lost] = []
    gathered: dict[tuple[Layout | None, int], list[Any]] = {}
    for line in segment:
        try:
            if not line.endswith(b"\n"):
                raise ValueError("cut off")
            found = orjson.loads(line)
            if "h" in found:
                layouts[found["h"]] = Layout.from_heading(found)
                continue
            layout = layouts[found["m"]] if "m" in found else None
            batch, hours = _labels(found) if layout is None else _rows(layout, found)
        except (ValueError, KeyError, TypeError, IndexError, pa.ArrowException):
            lost.append(_lost(line, layouts))
            continue
        for hour, part in _by_hour(batch, hours):
            gathered.setdefault((layout, hour), []).append(part)
    files = [_file(layout, hour, batches) for (layout, hour), batches in gathered.items()]
    return files, lost


def _rows(layout: Layout, found: Mapping[str, Any]) -> tuple[Any, list[int]]:
    """Return a line's rows, and the hour of each."""
    ids: list[str] = []
    rows: list[int] = []
    times: list[int] = []
    for request_id, count, first, time in zip(found["i"], found["c"], found["f"], found["t"], strict=True):
        ids += [request_id] * count
        rows += range(first, first + count)
        times += [time] * count
    empty = [None] * len(ids)
    arrays = [pa.array(ids, pa.string()), pa.array(rows, pa.int32()), pa.array(times, _TIME)]
    for (_, dtype), values in zip(layout.features, found["x"], strict=True):
        arrays.append(_array(values, _TYPES[dtype]))
    schema = _schema(layout)
    outputs = {PREDICT: "p", PROBABILITIES: "P", CONFIDENCE: "q"}
    for field in list(schema)[len(arrays) :]:
        arrays.append(_array(found.get(outputs[field.name], empty), field.type))
    return pa.record_batch(arrays, schema=schema), [time // _HOUR for time in times]


def _schema(layout: Layout) -> Any:
    fields = [("request_id", pa.string()), ("row", pa.int32()), ("answered_at", _TIME)]
    fields += [(FEATURE_PREFIX + name, _TYPES[dtype]) for name, dtype in layout.features]
    if layout.predict is not None:
        dtype, width = layout.predict
        fields.append((PREDICT, pa.list_(_TYPES[dtype]) if width else _TYPES[dtype]))
    if layout.classes:
        fields.append((PROBABILITIES, pa.list_(pa.float64())))
    if layout.confidence:
        fields.append((CONFIDENCE, pa.float64()))
    about = {"format": FORMAT, "classes": layout.labels}
    return pa.schema(fields, metadata={METADATA_KEY: orjson.dumps(about)})


def _array(values: list[Any], kind: Any) -> Any:
    if kind == pa.int64() and any(value is None or isinstance(value, float) for value in values):
        # Beside a missing one, which may be in another line, integers are floats in the service, and the largest is
        # rounded to one too many.
        values = [None if value is None else min(int(value), 2**63 - 1) for value in values]
    return pa.array(values, kind)


def _labels(found: Mapping[str, Any]) -> tuple[Any, list[int]]:
    columns = [found[key] for key in ("i", "r", "v", "o", "t")]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _LABELS, strict=True)]
    return pa.record_batch(arrays, schema=_LABELS), [time // _HOUR for time in found["t"]]


def _by_hour(batch: Any, hours: list[int]) -> Iterator[tuple[int, Any]]:
    found = sorted(set(hours))
    if len(found) == 1:
        yield found[0], batch
        return
    for hour in found:
        yield hour, batch.filter(pa.array([value == hour for value in hours]))


def _file(layout: Layout | None, hour: int, batches: list[Any]) -> File:
    table = pa.Table.from_batches(batches)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    when = datetime.fromtimestamp(hour * 3600, UTC)
    top = LABELS_FOLDER if layout is None else f"model={layout.model}/version={layout.version}"
    folder = f"{top}/date={when:%Y-%m-%d}/hour={when:%H}"
    return File(folder, sink.getvalue().to_pybytes(), table.num_rows, layout)


def _lost(line: bytes, layouts: Mapping[int, Layout]) -> Lost:
    start = _START.match(line)
    # Of a line that doesn't say it, at least one row is lost.
    return Lost(layouts.get(int(start[1])), int(start[2])) if start else Lost(None, 1)
