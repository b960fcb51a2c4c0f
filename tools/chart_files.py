"""``make sync``: copies of ``monitoring/`` in the monitoring chart, since Helm can read only what lies in a chart.

Rules and dashboards go into ``files/`` as they are, byte for byte; a file there that has no source goes away. The chart
fills in what depends on values when it is rendered, see its ``templates/_rules.tpl``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: Folder of the chart to the folder and the names of its sources.
SOURCES: Final = {"rules": ("rules", "*.yml"), "dashboards": ("dashboards/json", "*.json")}


def wanted(monitoring: Path, chart: Path) -> dict[Path, bytes]:
    """Return what the chart's copies must contain.

    Parameters
    ----------
    monitoring : Path
        The folder of the sources.
    chart : Path
        The chart's folder.
    """
    return {
        chart / "files" / folder / source.name: source.read_bytes()
        for folder, (below, pattern) in SOURCES.items()
        for source in sorted((monitoring / below).glob(pattern))
    }


def stale(copies: dict[Path, bytes], chart: Path) -> dict[Path, bytes | None]:
    """Return the copies that are missing or differ, and with None those that have no source."""
    there = {path for folder in SOURCES for path in (chart / "files" / folder).glob("*")}
    changed: dict[Path, bytes | None] = {
        path: content for path, content in copies.items() if path not in there or path.read_bytes() != content
    }
    return changed | dict.fromkeys(sorted(there - copies.keys()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the copies, or say which are out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.chart_files", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("chart", type=Path, metavar="CHART", help="the chart's folder")
    parser.add_argument("--monitoring", type=Path, default=ROOT / "monitoring", help="the folder of the sources")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a copy is out of date")
    options = parser.parse_args(arguments)
    if not options.chart.is_dir():
        sys.exit(f"{options.chart}: expected a chart's folder")
    changed = stale(wanted(options.monitoring, options.chart), options.chart)
    if changed and options.check:
        sys.exit("\n".join(f"{path}: is not what monitoring/ has; run `make sync`" for path in changed))
    for path, content in changed.items():
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
