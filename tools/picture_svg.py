"""Draws panels as one SVG: dark where the reader's system is dark, no script, no font and no file from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from tools.picture_parts import Chart, Number, Table, buckets, highest, runs, stacked, ticks, written

WIDTH: Final = 1080
GAP: Final = 14
HEAD: Final = 62
NUMBER_HEIGHT: Final = 62
PANEL_HEIGHT: Final = 236
#: A panel's plot: its distance from the panel's left, right and top.
LEFT, RIGHT, TOP = 74, 14, 36
_LEGEND_LINE: Final = 15
#: Of a table.
_ROW: Final = 19
#: Of the 11 px text, on average; nothing measures text here.
_CHARACTER: Final = 6.1
_COLOURS: Final = 8
#: The most names in a legend.
MOST_NAMES: Final = 6
_STYLE: Final = """
:root { --page: #f4f5f7; --panel: #ffffff; --line: #dcdfe4; --text: #1f2328; --soft: #626a73; --alarm: #c4352b;
  --c0: #1f6fb5; --c1: #d9730d; --c2: #1a8754; --c3: #a23b9c;
  --c4: #8a6d00; --c5: #0b8a96; --c6: #c2415d; --c7: #5b5fc7; }
@media (prefers-color-scheme: dark) {
:root { --page: #111317; --panel: #1a1d22; --line: #33383f; --text: #e3e6ea; --soft: #9aa3ad; --alarm: #ff7a6e;
  --c0: #6cb2f2; --c1: #ffa657; --c2: #56d394; --c3: #dc8fd8;
  --c4: #e0c34a; --c5: #4fd0dc; --c6: #ff8fa5; --c7: #a9abff; } }
text { font: 11px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--soft); }
.head { font-size: 18px; font-weight: 600; fill: var(--text); }
.title { font-size: 13px; font-weight: 600; fill: var(--text); }
.number { font-size: 20px; font-weight: 600; fill: var(--text); }
.cell { fill: var(--text); }
.small { font-size: 9.5px; }
.page { fill: var(--page); }
.panel { fill: var(--panel); stroke: var(--line); }
.grid { stroke: var(--line); }
.limit { stroke: var(--alarm); stroke-dasharray: 5 4; }
path { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
"""

Part = Chart | Table


def picture(
    title: str, note: str, numbers: Sequence[Number], parts: Sequence[Part], seconds: float, step: float
) -> str:
    """Return the SVG.

    Parameters
    ----------
    title, note : str
        Above all panels.
    numbers : sequence of Number
        In one line.
    parts : sequence of Chart or Table
        Two in a line.
    seconds : float
        What the time axes show.
    step : float
        Seconds between points.
    """
    tops = [HEAD + (NUMBER_HEIGHT + GAP if numbers else 0)]
    for place in range(0, len(parts), 2):
        tops.append(tops[-1] + max(_height(part) for part in parts[place : place + 2]) + GAP)
    height = tops[-1]
    width = (WIDTH - 3 * GAP) / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><desc>{escape(note)}</desc>',
        f"<style>{_STYLE}{''.join(_colour(number) for number in range(_COLOURS))}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        _text(GAP, 27, title, "head"),
        _text(GAP, 46, note),
    ]
    each = (WIDTH - (len(numbers) + 1) * GAP) / max(1, len(numbers))
    for place, number in enumerate(numbers):
        x = GAP + place * (each + GAP)
        lines += [_box(x, HEAD, each, NUMBER_HEIGHT), _text(x + 10, HEAD + 20, number.title)]
        lines.append(_text(x + 10, HEAD + 47, number.text, "number"))
    for place, part in enumerate(parts):
        x, y = GAP + place % 2 * (width + GAP), tops[place // 2]
        lines += [f'<g transform="translate({x:g} {y:g})">', _box(0, 0, width, tops[place // 2 + 1] - y - GAP)]
        lines.append(_text(12, 22, part.title, "title"))
        lines += _table(part, width) if isinstance(part, Table) else _chart(part, width, seconds, step)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>"]) + "\n"


def _height(part: Part) -> int:
    """Return how high a panel has to be: tables are as high as their rows, up to what a chart is."""
    return min(PANEL_HEIGHT, 62 + _ROW * len(part.rows)) if isinstance(part, Table) else PANEL_HEIGHT


def _colour(number: int) -> str:
    return f".l{number} {{ stroke: var(--c{number}); }} .f{number} {{ fill: var(--c{number}); }}\n"


def _box(x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="panel" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>'


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _table(table: Table, width: float) -> Iterator[str]:
    sizes = [max(len(row[place]) for row in (table.headings, *table.rows)) + 3 for place in range(len(table.headings))]
    scale = (width - 24) / sum(sizes)
    # Fonts that are wider than most would make columns touch.
    small = " small" if scale < _CHARACTER else ""
    for line, row in enumerate((table.headings, *table.rows)):
        y = 46 + _ROW * line
        if y > PANEL_HEIGHT - 10:
            return
        for place, cell in enumerate(row):
            yield _text(12 + scale * sum(sizes[:place]), y, cell, ("cell" if line else "") + small)
        if line == 0:
            yield _line(12, y + 6, width - 12, y + 6, "grid")


class _Plot:
    """Where a value at a time is, in pixels."""

    def __init__(self, width: float, bottom: float, seconds: float, highest: float) -> None:
        self.left, self.right, self.bottom = LEFT, width - RIGHT, bottom
        self._seconds = seconds
        self._highest = highest

    def x(self, at: float) -> float:
        return self.left + (self.right - self.left) * at / self._seconds

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - TOP) * min(value, self._highest) / self._highest


def _chart(chart: Chart, width: float, seconds: float, step: float) -> Iterator[str]:
    legend, legend_lines = _legend([] if chart.kind == "heat" else [name for name, _ in chart.series], width)
    bottom = PANEL_HEIGHT - 30 - _LEGEND_LINE * legend_lines
    if chart.kind == "heat":
        plot = _Plot(width, bottom, seconds, len(chart.series))
        yield from _heat(chart, plot, step)
    else:
        scale = ticks(
            max(highest(chart), *chart.thresholds, 0.0) if chart.maximum is None else chart.maximum, chart.unit
        )
        plot = _Plot(width, bottom, seconds, scale[-1])
        for value in scale:
            yield _line(plot.left, plot.y(value), plot.right, plot.y(value), "grid")
            yield _text(plot.left - 6, plot.y(value) + 4, written(value, chart.unit), anchor="end")
        yield from _lines(chart, plot, step) if chart.kind == "lines" else _layers(chart, plot)
        for limit in chart.thresholds:
            yield _line(plot.left, plot.y(limit), plot.right, plot.y(limit), "limit")
    minutes = seconds / 60
    for minute in ticks(minutes):
        if minute <= minutes + 1e-6:
            yield _text(plot.x(60 * minute), bottom + 15, f"{minute:g} min", anchor="middle")
    yield from legend


def _lines(chart: Chart, plot: _Plot, step: float) -> Iterator[str]:
    for place, (_, points) in enumerate(chart.series):
        for run in runs(points, step):
            # A single point is a dot: a line of no length with round ends would need another style.
            path = "L".join(f"{plot.x(at):.1f} {plot.y(value):.1f}" for at, value in [*run, run[-1]])
            yield f'<path class="l{place % _COLOURS}" stroke-linecap="round" d="M{path}"/>'


def _layers(chart: Chart, plot: _Plot) -> Iterator[str]:
    for place, (_, layer) in enumerate(stacked(chart.series, shares=chart.kind == "shares")):
        over = [f"{plot.x(at):.1f} {plot.y(high):.1f}" for at, _, high in layer]
        under = [f"{plot.x(at):.1f} {plot.y(low):.1f}" for at, low, _ in reversed(layer)]
        colour = place % _COLOURS
        yield f'<path class="f{colour}" style="fill:var(--c{colour});fill-opacity:.45" d="M{"L".join(over + under)}Z"/>'
        yield f'<path class="l{colour}" d="M{"L".join(over)}"/>'


def _heat(chart: Chart, plot: _Plot, step: float) -> Iterator[str]:
    cells = buckets(chart.series)
    most = max((count for _, counts in cells for count in counts.values()), default=0.0) or 1.0
    height = plot.y(0) - plot.y(1)
    for place, (bound, counts) in enumerate(cells):
        # Labels stand at the cells' upper bounds; every other one, for room.
        if place % 2 == 1:
            label = written(float(bound), chart.unit) if bound != "+Inf" else "∞"
            yield _text(plot.left - 6, plot.y(place + 1) + 4, label, anchor="end")
            yield _line(plot.left, plot.y(place + 1), plot.right, plot.y(place + 1), "grid")
        for at, count in counts.items():
            if count > 0:
                # The square root shows the few beside the many.
                opacity = 0.12 + 0.88 * (count / most) ** 0.5
                wide = max(1.0, plot.x(step) - plot.x(0) - 0.5)
                yield (
                    f'<rect class="f0" fill-opacity="{opacity:.2f}" x="{plot.x(at) - wide:.1f}" '
                    f'y="{plot.y(place + 1):.1f}" width="{wide:.1f}" height="{height - 0.5:.1f}"/>'
                )


def _legend(names: Sequence[str], width: float) -> tuple[list[str], int]:
    """Return the legend's elements, and how many lines they take; it must leave the plot some room."""
    if len(names) > MOST_NAMES:
        names = [*names[:MOST_NAMES], f"and {len(names) - MOST_NAMES} more"]
    places: list[tuple[float, int]] = []
    x, line = float(LEFT), 0
    for name in names:
        size = 22 + _CHARACTER * len(name)
        if x + size > width - RIGHT and x > LEFT:
            x, line = float(LEFT), line + 1
        places.append((x, line))
        x += size
    count = line + 1 if names else 0
    found = []
    for number, (name, (at, on)) in enumerate(zip(names, places, strict=True)):
        y = PANEL_HEIGHT - 10 - _LEGEND_LINE * (count - 1 - on)
        if number < MOST_NAMES:
            found.append(f'<rect class="f{number % _COLOURS}" x="{at:.1f}" y="{y - 8:g}" width="9" height="9" rx="2"/>')
        found.append(_text(at + 13, y, name))
    return found, count
