"""``muelle demo --monitor``: the demo service, made-up traffic that drifts, and what shows it: /ui and Prometheus."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

import muelle
from muelle.cli.demo_traffic import DRIFT_DEVIATIONS, DRIFTING_FEATURE, DRIFTING_MODEL, Mixture, Sender, real_rows
from muelle.cli.http import Server
from muelle.cli.output import note, working
from muelle.cli.serving import free_port, running, serving
from muelle.errors import MuelleError

_PROMETHEUS_PORT: Final = 9090
#: How often it is looked whether the children still run.
_LOOK_SECONDS: Final = 0.5
#: The page is what this is about; a log line a request would fill the disk of whoever lets it run for days.
_SETTINGS: Final = {"MUELLE_UI": "true", "MUELLE_ACCESS_LOG": "false"}
_QUERIES: Final = (
    ("requests a second", "sum by (model) (rate(muelle_requests_total[1m]))"),
    ("95 % latency", "histogram_quantile(0.95, sum by (model, le) (rate(muelle_request_duration_seconds_bucket[1m])))"),
)
_RULE_QUERY: Final = ("excess of PSI", f'muelle:feature_psi_excess:ratio1h{{model="{DRIFTING_MODEL}"}}')


@dataclass(frozen=True)
class Plan:
    """What is to happen.

    Attributes
    ----------
    rate : float
        Requests a second.
    drift_after : float
        Seconds of traffic before the drift begins.
    seconds : float, optional
        When it ends by itself; None: at Ctrl-C.
    prometheus : Path, optional
        The program; None: the one on the PATH, if there is one.
    """

    rate: float
    drift_after: float
    seconds: float | None
    prometheus: Path | None


def monitor(repository: Path, port: int, plan: Plan) -> None:
    """Serve, send, watch, until the plan ends or Ctrl-C.

    Raises
    ------
    MuelleError
        When a program doesn't start, or ends before its time.
    """
    with serving(repository, port, _SETTINGS) as service, _prometheus(plan.prometheus, port) as prometheus:
        click.echo(f"\nthe page:    {service.url}/ui")
        if prometheus is not None:
            _point_out(prometheus)
        click.echo(f"\n{plan.rate:g} requests a second from the real data sets, some of them in batches, some wrong.")
        click.echo(
            f"{DRIFTING_MODEL}'s feature '{DRIFTING_FEATURE}' begins to drift after {plan.drift_after:g} s: "
            "watch it in the page under Drift."
        )
        note("Ctrl-C ends it." if plan.seconds is None else f"It ends after {plan.seconds:g} s, or at Ctrl-C.")
        sender = Sender("127.0.0.1", port, plan.rate)
        with contextlib.suppress(KeyboardInterrupt):
            _send(plan, sender, (service.check, *([] if prometheus is None else [prometheus.check])))
        click.echo(f"\nsent {sender.summary()}")


def _send(plan: Plan, sender: Sender, checks: tuple[Callable[[], None], ...]) -> None:
    """Let the traffic run in a thread, while this one watches the children and the clock."""
    stop = threading.Event()
    mixture = Mixture(real_rows())
    thread = threading.Thread(target=sender.send, args=(iter(mixture), stop.is_set), name="traffic")
    started = time.monotonic()
    thread.start()
    try:
        while plan.seconds is None or time.monotonic() - started < plan.seconds:
            for check in checks:
                check()
            if not mixture.drifting and time.monotonic() - started >= plan.drift_after:
                mixture.drifting = True
                click.echo(
                    f"{time.strftime('%H:%M:%S')} '{DRIFTING_FEATURE}' of {DRIFTING_MODEL} is now {DRIFT_DEVIATIONS:g} "
                    "standard deviations larger"
                )
            time.sleep(_LOOK_SECONDS)
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class _Prometheus:
    """One that runs.

    Attributes
    ----------
    url : str
        Of its own page.
    rules : Path, optional
        The folder of the rules that it has.
    check : callable
        Raises `MuelleError` when it has ended.
    """

    url: str
    rules: Path | None
    check: Callable[[], None]


@contextlib.contextmanager
def _prometheus(named: Path | None, service_port: int) -> Iterator[_Prometheus | None]:
    """Run Prometheus beside the service until the block ends; yields None where there is none to run."""
    program = shutil.which(named or "prometheus")
    if program is None:
        if named is not None:
            raise MuelleError(f"--prometheus: {named} is no program that can be run")
        note(
            "no prometheus on the PATH: only the page, without history and alerts. Debian's package prometheus has it."
        )
        yield None
        return
    rules = _rules()
    port = free_port(_PROMETHEUS_PORT)
    with tempfile.TemporaryDirectory(prefix="muelle-prometheus-") as folder:
        config = Path(folder) / "prometheus.json"
        config.write_text(json.dumps(_config(service_port, rules)))
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with running("Prometheus", command) as process:
            url = f"http://127.0.0.1:{port}"
            server = Server(url, None, 10.0)
            with working("starting Prometheus"):
                process.wait_for(lambda: server.request("GET", "/-/ready").status == 200)
            yield _Prometheus(url, rules, process.check)


def _rules() -> Path | None:
    """Return the folder of the repository's rules, when this is run from a copy of the repository."""
    for root in (Path.cwd(), Path(muelle.__file__).resolve().parents[1]):
        folder = root / "monitoring" / "rules"
        if any(folder.glob("*.yml")):
            return folder
    return None


def _config(service_port: int, rules: Path | None) -> dict[str, object]:
    """Return Prometheus' configuration as JSON, which is YAML too; with the labels that the chart's monitors add."""
    target = {"targets": [f"127.0.0.1:{service_port}"], "labels": {"namespace": "demo", "pod": "demo"}}
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "10s"},
        "rule_files": [] if rules is None else [f"{rules}/*.yml"],
        "scrape_configs": [{"job_name": "muelle", "static_configs": [target]}],
    }


def _point_out(prometheus: _Prometheus) -> None:
    """Say what to look at in Prometheus."""
    click.echo(f"Prometheus:  {prometheus.url}")
    if prometheus.rules is None:
        note("without rules: they are in the repository's folder monitoring/rules, which is not here.")
    for name, query in (*_QUERIES, *([] if prometheus.rules is None else [_RULE_QUERY])):
        click.echo(
            f"  {name + ':':<21}{prometheus.url}/graph?g0.expr={quote(query, safe='')}&g0.tab=0&g0.range_input=15m"
        )
    if prometheus.rules is not None:
        click.echo(f"  {'alerts:':<21}{prometheus.url}/alerts (drift has to last 15 minutes)")
