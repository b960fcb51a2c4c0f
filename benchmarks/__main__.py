"""``python -m benchmarks``: prepare, compare, measure, report."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from benchmarks import BenchmarkError, load
from benchmarks.compare import SERVERS, Plan, compare
from benchmarks.observing import COST_LIMIT, RATE_LIMIT, measure_observing
from benchmarks.report import Measure, Report
from benchmarks.resources import PSS_LIMIT_MIB, START_LIMIT_SECONDS, measure_memory, measure_starts
from benchmarks.servers import ROOT, clean_environment, end_group
from benchmarks.works import WORKS

RESULTS: Final = Path(__file__).with_name("results") / "latest.json"
NAMES: Final = (*(work.name for work in WORKS), "workers", "observing", "memory", "start")
#: A load average above this means that others use the cores too.
_IDLE: Final = 0.5
_PREPARE_LIMIT_SECONDS: Final = 900


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="3 rounds of 1 s instead of 7 of 3 s: to see that it runs.")
@click.option("--work", "chosen", type=click.Choice(NAMES), multiple=True, help="Only this; may be repeated.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="On stdout.")
def main(quick: bool, chosen: tuple[str, ...], output: str) -> None:
    """Compare Muelle's server with a naive and a do-nothing one.

    Ends with 0 whether or not the targets are reached, with 1 when an answer is wrong or a request fails, and with 2
    when wrk is missing.
    """
    if not load.is_installed():
        click.echo(load.INSTALL_HINT, err=True)
        sys.exit(2)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        click.echo("two cores are needed: one for the server, one for the load", err=True)
        sys.exit(1)
    # Ended from outside, the servers still have to be ended and the folder removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory(prefix="muelle-bench-") as folder:
            plan = Plan(
                folder=Path(folder),
                rounds=3 if quick else 7,
                seconds=1 if quick else 3,
                server_core=cores[0],
                load_core=cores[1],
                tell=lambda line: progress.print(f"[dim]{line}[/]", highlight=False),
            )
            report = _run(plan, chosen or NAMES)
    except BenchmarkError as error:
        click.echo(f"the benchmark failed: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        sys.exit(130)
    text = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    if output == "json":
        click.echo(text)
    else:
        report.print(Console())


def _run(plan: Plan, chosen: tuple[str, ...]) -> Report:
    report = Report(plan)
    _prepare(plan)
    # wrk, and the polling here, stay off the server's core.
    os.sched_setaffinity(0, {plan.load_core})
    if report.load_average > _IDLE:
        report.notes.append(f"the machine was not idle: load average {report.load_average:.2f} before the start")
    for work in WORKS:
        if work.name in chosen:
            report.add_work(work, compare(plan, work, workers=1, cores=[plan.server_core]))
    if "workers" in chosen:
        _scale(plan, report)
    if "observing" in chosen:
        for cost in measure_observing(plan):
            limit = COST_LIMIT if cost.limited else None
            name = f"{cost.name} ÷ nothing: processor time"
            report.measures.append(Measure("observing", name, cost.processor, "x", limit, at_least=False))
            limit = RATE_LIMIT if cost.limited else None
            report.measures.append(Measure("observing", f"{cost.name} ÷ nothing: requests/s", cost.rate, "x", limit))
    if "memory" in chosen:
        memory = measure_memory(plan)
        name = "PSS of two workers and arbiter, forest, ONNX"
        report.measures.append(Measure("memory", name, memory.pss_mib, "MiB", PSS_LIMIT_MIB, at_least=False))
    if "start" in chosen:
        starts = statistics.median(measure_starts(plan))
        name = "from spawn to /readyz 200, all models"
        report.measures.append(Measure("start", name, starts, "s", START_LIMIT_SECONDS, at_least=False))
    return report


def _prepare(plan: Plan) -> None:
    plan.tell("training the models")
    command = [sys.executable, "-m", "benchmarks.prepare", str(plan.folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )
    try:
        status = process.wait(_PREPARE_LIMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"the models were not made within {_PREPARE_LIMIT_SECONDS} s") from error
    finally:
        end_group(process)
    if status:
        raise BenchmarkError(f"the models could not be made: status {status}")


def _scale(plan: Plan, report: Report) -> None:
    """One and two workers, on both cores, which they share with wrk: the gain is less than it would be without it."""
    work = WORKS[0]
    found = {}
    for workers in (1, 2):
        found[workers] = compare(plan, work, workers, cores=[plan.server_core, plan.load_core])
        title = f"{work.title}: {workers} worker{'s' * (workers > 1)}, both cores"
        report.add_comparison(f"workers-{workers}", title, found[workers])
    for server in SERVERS:
        one, two = (found[workers].median(server).requests_per_second for workers in (1, 2))
        report.measures.append(Measure("workers", f"{server}: 2 workers ÷ 1", two / one, "x"))
    report.notes.append(
        "workers: the servers may use both cores and share one with wrk, so a second worker can't double"
    )


if __name__ == "__main__":
    main()
