"""What a picture of panels is made of, and how their numbers are written: pure, without a line of SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["lines", "stacked", "shares", "heat"]
#: (seconds since the picture's beginning, value), by time.
Points = Sequence[tuple[float, float]]
#: (seconds since the picture's beginning, lower edge, upper edge), by time.
Layer = Sequence[tuple[float, float, float]]

_SECONDS: Final = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES: Final = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"))
_SUFFIXES: Final[Mapping[str, str]] = {"reqps": " req/s", "rowsps": " rows/s"}


@dataclass(frozen=True)
class Number:
    """One number with a heading."""

    title: str
    text: str


@dataclass(frozen=True)
class Chart:
    """A panel over time.

    Attributes
    ----------
    series : sequence
        (name, points); of a heat map, (upper bound, counts) from the lowest bucket to the highest.
    thresholds : sequence of float
        Where dashed lines are.
    maximum : float, optional
        Of the vertical axis; None: what the values need.
    """

    title: str
    unit: str
    kind: Kind
    series: Sequence[tuple[str, Points]]
    thresholds: Sequence[float] = ()
    maximum: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text under headings."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def written(value: float, unit: str) -> str:
    """Return a number in its unit, with three digits or so."""
    if not math.isfinite(value):
        return "no number"
    if unit == "percentunit":
        return f"{_digits(100 * value)} %"
    if unit == "s":
        return _scaled(value, _SECONDS)
    if unit == "bytes":
        return _scaled(value, _BYTES)
    if unit.startswith("currency"):
        return f"${_digits(value)}"
    if unit.startswith("suffix:"):
        return _digits(value) + unit.removeprefix("suffix:")
    return _digits(value) + _SUFFIXES.get(unit, "")


def _scaled(value: float, scales: Sequence[tuple[float, str]]) -> str:
    for size, name in scales:
        if abs(value) >= size:
            return f"{_digits(value / size)} {name}"
    size, name = scales[-1]
    return f"{_digits(value / size)} {name}" if value else "0"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(maximum: float, unit: str = "none") -> list[float]:
    """Return about four steps, round in the unit, from 0 to the first one that is not below the maximum."""
    if not maximum > 0:
        return [0.0, 1.0]
    # 100 MiB is round, 100,000,000 bytes are not.
    scales = _BYTES if unit == "bytes" else _SECONDS[:2] if unit == "s" else ()
    of_unit = next((size for size, _ in scales if maximum >= size), 1.0)
    rough = maximum / of_unit / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = of_unit * next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough * (1 - 1e-9))
    return [step * place for place in range(math.ceil(maximum / step - 1e-9) + 1)]


def runs(points: Points, step: float) -> list[list[tuple[float, float]]]:
    """Return the points in runs without a gap; what is not finite is one."""
    found: list[list[tuple[float, float]]] = []
    last = -math.inf
    for at, value in points:
        if not math.isfinite(value):
            continue
        if at - last > 1.5 * step:
            found.append([])
        found[-1].append((at, value))
        last = at
    return found


def stacked(series: Sequence[tuple[str, Points]], *, shares: bool) -> list[tuple[str, Layer]]:
    """Return the series on top of one another; as parts of 1 where shares are asked for."""
    times = sorted({at for _, points in series for at, _ in points})
    values = [{at: value for at, value in points if math.isfinite(value)} for _, points in series]
    base = dict.fromkeys(times, 0.0)
    whole = {at: sum(one.get(at, 0.0) for one in values) for at in times}
    found: list[tuple[str, Layer]] = []
    for (name, _), one in zip(series, values, strict=True):
        layer: list[tuple[float, float, float]] = []
        for at in times:
            height = one.get(at, 0.0)
            if shares:
                height = height / whole[at] if whole[at] else 0.0
            layer.append((at, base[at], base[at] + height))
            base[at] += height
        found.append((name, layer))
    return found


def highest(chart: Chart) -> float:
    """Return the largest value that is drawn; 0 where there is none."""
    if chart.kind == "shares":
        return 1.0
    if chart.kind == "stacked":
        return max((high for _, layer in stacked(chart.series, shares=False) for _, _, high in layer), default=0.0)
    return max((value for _, points in chart.series for _, value in points if math.isfinite(value)), default=0.0)


def buckets(series: Sequence[tuple[str, Points]]) -> list[tuple[str, dict[float, float]]]:
    """Return what is in each bucket, of a histogram's cumulative series in ascending order."""
    below: dict[float, float] = {}
    found = []
    for name, points in series:
        now = {at: value for at, value in points if math.isfinite(value)}
        found.append((name, {at: max(0.0, value - below.get(at, 0.0)) for at, value in now.items()}))
        below = now
    return found
