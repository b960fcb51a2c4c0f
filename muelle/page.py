"""The frame of the pages that commands write: one HTML file, with nothing from outside in it."""

from __future__ import annotations

from html import escape
from typing import Final

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


def page(title: str, body: str) -> str:
    """Return a page.

    Parameters
    ----------
    title : str
        A text; its heading too.
    body : str
        HTML: what came from elsewhere is escaped in it.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
{body}
</body></html>
"""
