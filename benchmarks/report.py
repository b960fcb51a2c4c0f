"""What was measured as tables for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.compare import SERVERS, Comparison, Plan
from benchmarks.load import CONNECTIONS
from benchmarks.servers import KEEPALIVE_SECONDS, THREADS
from benchmarks.works import P99_TIMES_P50, Work

FORMAT_VERSION: Final = 1
_LIBRARIES: Final = ("flask", "gunicorn", "numpy", "onnxruntime", "orjson", "pysimdjson", "scikit-learn", "joblib")


@dataclass(frozen=True)
class Measure:
    """One number and what it should be.

    Attributes
    ----------
    work, name : str
        Of what.
    value : float
        Measured.
    unit : str
        ``x``, ``MiB`` or ``s``.
    target : float, optional
        None where there is none.
    at_least : bool
        Whether the value should be at least the target, or at most.
    """

    work: str
    name: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        """Whether the value is what it should be; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass
class Report:
    """What a run found; grows while it goes on."""

    plan: Plan
    load_average: float = field(default_factory=lambda: os.getloadavg()[0])
    comparisons: dict[str, tuple[str, Comparison]] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_comparison(self, name: str, title: str, comparison: Comparison) -> None:
        """Keep what the three servers did, for the table of rates."""
        self.comparisons[name] = (title, comparison)

    def add_work(self, work: Work, comparison: Comparison) -> None:
        """Keep a work with its targets."""
        self.add_comparison(work.name, work.title, comparison)
        mine = comparison.median("ours")
        self.measures += [
            Measure(work.name, "requests/s ÷ naive's", comparison.times("naive"), "x", work.times_naive),
            Measure(work.name, "requests/s ÷ raw WSGI's", comparison.times("raw"), "x", work.times_raw),
            Measure(work.name, "p99 ÷ p50", mine.p99_ms / mine.p50_ms, "x", P99_TIMES_P50, at_least=False),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything, each round included."""
        return {
            "format_version": FORMAT_VERSION,
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": {
                "processor": _processor(),
                "cores": os.cpu_count(),
                "load_average_at_start": self.load_average,
                "python": platform.python_version(),
                "libraries": {name: version(name) for name in _LIBRARIES},
            },
            "settings": {
                "connections": CONNECTIONS,
                "threads_per_worker": THREADS,
                "keepalive_seconds": KEEPALIVE_SECONDS,
                "rounds": self.plan.rounds,
                "seconds_per_round": self.plan.seconds,
                "server_core": self.plan.server_core,
                "load_core": self.plan.load_core,
            },
            "works": [
                {
                    "name": name,
                    "title": title,
                    "servers": {
                        server: {
                            **dataclasses.asdict(comparison.median(server)),
                            "rounds": [dataclasses.asdict(item) for item in comparison.rounds[server]],
                        }
                        for server in SERVERS
                    },
                }
                for name, (title, comparison) in self.comparisons.items()
            ],
            "measures": [{**dataclasses.asdict(item), "reached": item.reached} for item in self.measures],
            "notes": self.notes,
        }

    def print(self, console: Console) -> None:
        """Print the rates, the ratios beside their targets, and the notes."""
        if self.comparisons:
            console.print(self._rates())
        console.print(_targets(self.measures))
        for note in self.notes:
            console.print(f"• {note}")

    def _rates(self) -> Table:
        plan = self.plan
        table = Table(title=f"Medians of {plan.rounds} rounds of {plan.seconds} s, {CONNECTIONS} connections")
        table.add_column("work")
        table.add_column("server")
        for heading in ("requests/s", "slowest, fastest", "p50 ms", "p99 ms", "CPU ms"):
            table.add_column(heading, justify="right")
        for name, (_, comparison) in self.comparisons.items():
            for server in SERVERS:
                mid = comparison.median(server)
                rates = [item.requests_per_second for item in comparison.rounds[server]]
                table.add_row(
                    name if server == SERVERS[0] else "",
                    server,
                    f"{mid.requests_per_second:,.0f}",
                    f"{min(rates):,.0f}, {max(rates):,.0f}",
                    f"{mid.p50_ms:.2f}",
                    f"{mid.p99_ms:.2f}",
                    f"{mid.cpu_ms:.3f}",
                    end_section=server == SERVERS[-1],
                )
        return table


def _targets(measures: Sequence[Measure]) -> Table:
    table = Table(title="Targets")
    for heading in ("work", "measure"):
        table.add_column(heading)
    for heading in ("value", "target"):
        table.add_column(heading, justify="right")
    table.add_column("reached")
    for item in measures:
        reached = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[item.reached]
        target = "" if item.target is None else f"{'≥' if item.at_least else '≤'} {item.target:g}"
        table.add_row(item.work, item.name, f"{item.value:.2f} {item.unit}", target, reached)
    return table


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
