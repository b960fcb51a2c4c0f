"""Quality as a page: the scores by period and version with their intervals, and how many rows they were made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from muelle.page import page
from muelle.quality.evaluate import Row
from muelle.quality.scores import Score

#: Score → how tables call it; in the order of their columns.
TITLES: Final[Mapping[str, str]] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
}
#: Readable on light and dark ground; each mark says its version, too, when it is pointed at.
_COLOURS: Final = ("#1f6feb", "#d9730d", "#2da44e", "#a371f7", "#bf3989", "#7d8590")
_LEFT: Final = 58
_SLOT: Final = 46
_TOP: Final = 12
_HEIGHT: Final = 150
_COVERAGE: Final = 48
_GAP: Final = 28
_MOST_LABELS: Final = 16

References = Mapping[tuple[str, str], Mapping[str, float]]


def html_report(title: str, rows: Sequence[Row], references: References) -> str:
    """Return a page with a table and a plot for each model and score.

    Parameters
    ----------
    title : str
        What was looked at.
    rows : sequence of Row
        By model, version and period.
    references : mapping
        (model, version) to the scores that its bundle has, by the same names.
    """
    models = dict.fromkeys(row.model for row in rows)
    parts = [_model(model, [row for row in rows if row.model == model], references) for model in models]
    return page(
        title,
        "<p>Scores of the predictions whose label is known, with 95 % intervals. Where the coverage is low, those rows "
        "may be unlike the others.</p>\n" + "\n".join(parts),
    )


def _model(model: str, rows: Sequence[Row], references: References) -> str:
    names = [name for name in TITLES if any(name in row.scores for row in rows)]
    head = "".join(f"<th>{escape(TITLES[name])}</th>" for name in names)
    body = "".join(_table_row(row, names) for row in rows)
    figures = "".join(_figure(model, name, rows, references) for name in names)
    table = (
        "<table><thead><tr><th>version</th><th>period</th><th>predictions</th><th>labelled</th><th>coverage</th>"
        f"<th>median lag</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
    # Intervals are not broken over lines; a table that gets too wide for that is scrolled.
    return f'<h2>{escape(model)}</h2>{figures}<div style="overflow-x:auto;white-space:nowrap">{table}</div>'


def _table_row(row: Row, names: Sequence[str]) -> str:
    cells = [row.version, row.period, str(row.predictions), str(row.labelled), _percent(row.coverage)]
    cells += [lag_text(row.lag_seconds), *(score_text(row.scores.get(name)) for name in names)]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def score_text(score: Score | None) -> str:
    """Return a score as ``0.953 [0.921, 0.972]``; a dash when there is none."""
    if score is None or math.isnan(score.value):
        return "-"
    if math.isnan(score.low):
        return f"{score.value:.4g}"
    return f"{score.value:.4g} [{score.low:.4g}, {score.high:.4g}]"


def lag_text(seconds: float) -> str:
    """Return a time as people say it; a dash when it isn't known."""
    if math.isnan(seconds):
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


def _figure(model: str, name: str, rows: Sequence[Row], references: References) -> str:
    periods = sorted({row.period for row in rows})
    versions = list(dict.fromkeys(row.version for row in rows))
    colours = {version: _COLOURS[place % len(_COLOURS)] for place, version in enumerate(versions)}
    wanted = {version: references.get((model, version), {}).get(name) for version in versions}
    scale = _Scale(
        [row.scores[name] for row in rows if name in row.scores], [v for v in wanted.values() if v is not None]
    )
    marks = [_axis(scale)]
    for row in rows:
        left = _LEFT + periods.index(row.period) * _SLOT
        middle = left + _SLOT * (versions.index(row.version) + 1) / (len(versions) + 1)
        marks.append(_mark(row, name, middle, scale, colours[row.version]))
        marks.append(_coverage(row, middle, max(4.0, _SLOT / (len(versions) + 1) - 3), colours[row.version]))
    width = _LEFT + len(periods) * _SLOT + 8
    for version, value in wanted.items():
        if value is not None:
            y = scale.y(value)
            marks.append(
                f'<line x1="{_LEFT}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colours[version]}" '
                f'stroke-dasharray="4 4"><title>{escape(version)} in its bundle: {value:.4g}</title></line>'
            )
    every = max(1, math.ceil(len(periods) / _MOST_LABELS))
    bottom = _TOP + _HEIGHT + _GAP + _COVERAGE + 14
    for place, period in enumerate(periods):
        if place % every == 0:
            x = _LEFT + (place + 0.5) * _SLOT
            text = period[5:] if len(period) == 10 else period
            marks.append(f'<text x="{x:.1f}" y="{bottom}" text-anchor="middle">{escape(text)}</text>')
    legend = ", ".join(f'<span style="color:{colours[version]}">■</span> {escape(version)}' for version in versions)
    said = escape(
        f"{TITLES[name]} of {model} by period and version, with 95 % intervals; below, the share that is labelled"
    )
    dashed = "; dashed, what the bundle says" if any(value is not None for value in wanted.values()) else ""
    return (
        f'<figure><figcaption>{said}{dashed}: {legend}</figcaption><svg viewBox="0 0 {width} {bottom + 8}" '
        f'style="max-width:{width * 2}px" role="img" aria-label="{said}">{"".join(marks)}</svg></figure>'
    )


class _Scale:
    """From scores to heights."""

    def __init__(self, scores: Sequence[Score], others: Sequence[float]) -> None:
        values = [value for score in scores for value in (score.value, score.low, score.high) if math.isfinite(value)]
        values += [value for value in others if math.isfinite(value)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
        self.low, self.high = low - margin, high + margin

    def y(self, value: float) -> float:
        return _TOP + _HEIGHT * (self.high - value) / (self.high - self.low)


def _axis(scale: _Scale) -> str:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = scale.low + share * (scale.high - scale.low)
        y = scale.y(value)
        parts.append(
            f'<line x1="{_LEFT}" x2="100%" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    base = _TOP + _HEIGHT + _GAP
    for share in (0, 1):
        y = base + _COVERAGE * (1 - share)
        parts.append(
            f'<line x1="{_LEFT}" x2="100%" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    return "".join(parts)


def _mark(row: Row, name: str, x: float, scale: _Scale, colour: str) -> str:
    score = row.scores.get(name)
    if score is None or math.isnan(score.value):
        return ""
    whisker = ""
    if not math.isnan(score.low):
        whisker = (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{scale.y(score.high):.1f}" y2="{scale.y(score.low):.1f}" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
    said = escape(f"{row.version}, {row.period}: {score_text(score)}, {score.rows} rows")
    return (
        f'<g><title>{said}</title>{whisker}<circle cx="{x:.1f}" cy="{scale.y(score.value):.1f}" r="4" '
        f'fill="{colour}"/></g>'
    )


def _coverage(row: Row, x: float, width: float, colour: str) -> str:
    if math.isnan(row.coverage):
        return ""
    height = _COVERAGE * row.coverage
    y = _TOP + _HEIGHT + _GAP + _COVERAGE - height
    said = escape(f"{row.version}, {row.period}: {row.labelled} of {row.predictions} labelled")
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" '
        f'opacity="0.6"><title>{said}</title></rect>'
    )
