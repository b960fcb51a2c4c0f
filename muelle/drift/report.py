"""Drift as a page: one HTML file, with nothing from outside in it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from muelle.drift.statistics import ALPHA, EXCESS, MINIMUM, Comparison
from muelle.page import page

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
    return page(
        title,
        f"""<p><strong>{escape(verdict)}.</strong> A column has drifted when its PSI exceeds the noise expected without
drift by more than {EXCESS}, is above what noise reaches with probability {ALPHA}, and there are more than {MINIMUM}
rows.</p>
<table><thead><tr><th>column</th><th>PSI</th><th>noise</th><th>critical</th><th>excess</th><th>rows</th>
<th>most changed bin</th><th>verdict</th></tr></thead><tbody>{rows}</tbody></table>
<h2>Distributions</h2>
{figures}""",
    )


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
