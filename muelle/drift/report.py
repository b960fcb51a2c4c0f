"""Drift as a page: one HTML file, with nothing from outside in it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from muelle.drift.statistics import ALPHA, EXCESS, MINIMUM, Comparison

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b2733; --paper: #fff; --reference: #9aa5b1; --observed: #1f6feb; --alarm: #c62828; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --reference: #6e7681; --alarm: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid #8884; }
th:first-child, td:first-child, td.state { text-align: left; }
.drifted { color: var(--alarm); font-weight: 600; }
svg { width: 100%; height: auto; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
figure { margin: 1rem 0 2rem; }
"""  # noqa: E501  # a style rule a line
_HEIGHT: Final = 120
_SLOT: Final = 56
_BAR: Final = 22


def html_report(title: str, comparisons: Mapping[str, Comparison]) -> str:
    """Return a page with the table, and the observed beside the reference distribution of each column.

    Parameters
    ----------
    title : str
        What was compared.
    comparisons : mapping
        Column name to comparison, in the order to show.
    """
    rows = "".join(_row(name, item) for name, item in comparisons.items())
    figures = "".join(_figure(name, item) for name, item in comparisons.items())
    drifted = [name for name, item in comparisons.items() if item.state == "drifted"]
    verdict = f"{len(drifted)} of {len(comparisons)} columns have drifted" + (
        f": {', '.join(drifted)}" if drifted else ""
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p><strong>{escape(verdict)}.</strong> A column has drifted when its PSI exceeds the noise expected without drift by
more than {EXCESS}, is above what noise reaches with probability {ALPHA}, and there are more than {MINIMUM} rows.</p>
<table><thead><tr><th>column</th><th>PSI</th><th>noise</th><th>critical</th><th>excess</th><th>rows</th>
<th>most changed bin</th><th>verdict</th></tr></thead><tbody>{rows}</tbody></table>
<h2>Distributions</h2>
{figures}
</body></html>
"""


def _row(name: str, item: Comparison) -> str:
    numbers = "".join(f"<td>{value:.4f}</td>" for value in (item.psi, item.noise, item.critical, item.excess))
    kind = "drifted" if item.state == "drifted" else "calm"
    return (
        f"<tr><td>{escape(name)}</td>{numbers}<td>{item.observations}</td><td>{escape(item.largest_change)}</td>"
        f'<td class="state {kind}">{item.state}</td></tr>'
    )


def _figure(name: str, item: Comparison) -> str:
    top = max(float(item.observed.max()), float(item.reference.max()))
    bars = []
    for place, label in enumerate(item.labels):
        left = place * _SLOT + 6
        for offset, colour, share in (
            (0, "reference", item.reference[place]),
            (_BAR, "observed", item.observed[place]),
        ):
            height = _HEIGHT * float(share) / top
            bars.append(
                f'<rect x="{left + offset}" y="{_HEIGHT - height:.2f}" width="{_BAR - 2}" height="{height:.2f}" '
                f'fill="var(--{colour})"><title>{colour} {float(share):.1%}</title></rect>'
            )
        bars.append(f'<text x="{left + _BAR}" y="{_HEIGHT + 14}" text-anchor="middle">{escape(label)}</text>')
    width = len(item.labels) * _SLOT + 12
    described = escape(f"{name}: share of rows in each bin, reference in grey and observed in blue; PSI {item.psi:.4f}")
    return (
        f'<figure><figcaption>{described}</figcaption><svg viewBox="0 0 {width} {_HEIGHT + 20}" role="img" '
        f'aria-label="{described}">{"".join(bars)}</svg></figure>'
    )
