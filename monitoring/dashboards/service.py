"""*Service*: is it asked, does it answer, how fast, does it keep up."""

from __future__ import annotations

from typing import Any

from monitoring.dashboards.layout import assemble
from monitoring.dashboards.panels import ORANGE, RED, Column, Panel, Query, graph, heat_map, stat_panel
from monitoring.dashboards.panels import table_panel as table
from monitoring.dashboards.promql import (
    OBJECTIVES,
    PODS,
    VERSION,
    increase,
    mean,
    quantile,
    rate,
    series,
    share,
    total,
)

REQUESTS = "muelle_requests_total"
SECONDS = "muelle_request_duration_seconds"
SERVER_ERRORS = 'code=~"5.."'
CALLER_ERRORS = 'code=~"4.."'
#: One series a pod.
ARBITER = 'slot="arbiter"'
BY_VERSION = "{{model}} {{version}}"
#: Factors at which the alerts in rules/slo.yml page.
BURN_STEPS = ((6.0, ORANGE), (14.4, RED))


def pods(*by: str) -> str:
    """Return how many pods are scraped; a pod that is scraped twice counts once."""
    each = ", ".join(("namespace", "pod", "instance", *by))
    counted = f"count by ({each}) ({series('muelle_worker_memory_bytes', ARBITER, of=PODS)})"
    return f"count by ({', '.join(by)}) ({counted})" if by else f"count({counted})"


def burn(objective: str, window: str) -> str:
    """Return how many times faster than allowed an objective's error budget is used up."""
    errors = series(f"muelle:slo_errors_{objective}:ratio_rate{window}", of=OBJECTIVES)
    return f'max({errors}) / scalar(muelle:slo_budget:ratio{{slo="{objective}"}})'


def build() -> Any:
    """Return the dashboard."""
    return assemble(
        "service",
        "Muelle / Service",
        "Traffic, errors, latency and saturation of the servers, and versions side by side.",
        {
            "Now": _now(),
            "Traffic": _traffic(),
            "Errors and objectives": _errors(),
            "Latency": _latency(),
            "Versions side by side": _versions(),
            "Saturation": _saturation(),
            "Models": _models(),
        },
    )


def _now() -> list[Panel]:
    return [
        stat_panel("Requests", "Requests answered per second, refused ones included.", "reqps", total(rate(REQUESTS))),
        stat_panel("Predictions", "Rows predicted per second.", "rowsps", total(rate("muelle_batch_rows_sum"))),
        stat_panel(
            "Server errors",
            "Share of requests that were answered with 5xx.",
            "percentunit",
            share(rate(REQUESTS, SERVER_ERRORS), rate(REQUESTS)),
            thresholds=((0.001, ORANGE), (0.01, RED)),
        ),
        stat_panel(
            "Latency, p99",
            "99 of 100 requests took less, in the server.",
            "s",
            quantile(0.99, rate(f"{SECONDS}_bucket")),
            thresholds=((0.25, ORANGE), (1, RED)),
        ),
        stat_panel("Pods", "Pods whose metrics Prometheus gets.", "none", pods()),
        stat_panel(
            "Fastest burn",
            "The larger of the two objectives' burn rates over the last hour: 1 uses the error budget up in just 30 "
            "days.",
            "suffix: x",
            # The label keeps `or` from taking the second for the first.
            f"max({burn('availability', '1h')} or label_replace({burn('latency', '1h')}, 'slo', 'latency', '', ''))",
            thresholds=((1, ORANGE), (6, RED)),
        ),
    ]


def _traffic() -> list[Panel]:
    return [
        graph(
            "Requests by status code",
            "2xx: answered. 4xx: the caller's mistake. 503: turned away, or a model isn't ready. Other 5xx: ours.",
            "reqps",
            Query(total(rate(REQUESTS), "code"), "{{code}}"),
            stack="normal",
        ),
        graph(
            "Requests by protocol",
            "simple: /predict with plain JSON. oip: Open Inference Protocol, /v2.",
            "reqps",
            Query(total(rate(REQUESTS), "protocol"), "{{protocol}}"),
            stack="normal",
        ),
        graph(
            "Rows in a request",
            "Mean number of rows. Larger ones use the processor better and take longer.",
            "none",
            Query(mean("muelle_batch_rows", *VERSION), BY_VERSION),
        ),
    ]


def _errors() -> list[Panel]:
    return [
        graph(
            "Server errors by version",
            "Share of a version's requests that were answered with 5xx.",
            "percentunit",
            Query(share(rate(REQUESTS, SERVER_ERRORS), rate(REQUESTS), *VERSION), BY_VERSION),
            width=12,
        ),
        graph(
            "Refused input by version",
            "Share of requests answered with 4xx: a caller sends what the model doesn't take, or a model that isn't "
            "served (version unknown).",
            "percentunit",
            # A version that refused nothing has no 4xx series but the one for 400, which exists from the start.
            Query(share(rate(REQUESTS, CALLER_ERRORS), rate(REQUESTS), *VERSION), BY_VERSION),
            width=12,
        ),
        _burns("Availability: budget burn", "5xx answers", "availability"),
        _burns("Latency: budget burn", "answers slower than 250 ms", "latency"),
    ]


def _burns(title: str, what: str, objective: str) -> Panel:
    return graph(
        title,
        f"How many times faster than allowed {what} use up the error budget, of the worst model. 1: gone after 30 "
        "days. Pages at 14.4 over an hour or 6 over six hours, when the short window agrees (docs/runbooks).",
        "suffix: x",
        *[Query(burn(objective, window), f"over {window}") for window in ("5m", "1h", "6h")],
        width=12,
        thresholds=BURN_STEPS,
    )


def _latency() -> list[Panel]:
    buckets = rate(f"{SECONDS}_bucket")
    return [
        graph(
            "Latency quantiles",
            "Time in the server, from reading a request to handing over its answer; interpolated within buckets.",
            "s",
            *[Query(quantile(q, buckets), f"p{round(q * 100)}") for q in (0.5, 0.9, 0.99)],
        ),
        heat_map(
            "Latency, all requests",
            "How many requests took how long. Two bands are two kinds of requests; an average would hide that.",
            "s",
            total(f"increase({series(f'{SECONDS}_bucket')}[$__rate_interval])", "le"),
        ),
        graph(
            "Time by stage",
            "Mean time that a request spends in each stage: decode, validate, predict, encode. Only requests that "
            "got through all.",
            "s",
            Query(mean("muelle_stage_duration_seconds", "stage"), "{{stage}}"),
            stack="normal",
        ),
    ]


def _versions() -> list[Panel]:
    bounds = increase(f"{SECONDS}_bucket")
    columns = {
        "Requests": Column(total(increase(REQUESTS), *VERSION), "short"),
        "Rows": Column(total(increase("muelle_batch_rows_sum"), *VERSION), "short"),
        "5xx": Column(share(increase(REQUESTS, SERVER_ERRORS), increase(REQUESTS), *VERSION), "percentunit"),
        "4xx": Column(share(increase(REQUESTS, CALLER_ERRORS), increase(REQUESTS), *VERSION), "percentunit"),
        "p50": Column(quantile(0.5, bounds, *VERSION), "s"),
        "p99": Column(quantile(0.99, bounds, *VERSION), "s"),
    }
    stage = "muelle_stage_duration_seconds"
    predict = 'stage="predict"'
    return [
        table(
            "Versions",
            "Each version over all that is shown: a candidate beside the stable one.",
            {"model": "Model", "version": "Version"},
            columns,
            width=24,
            sort_by="Requests",
        ),
        graph(
            "Requests by version",
            "A canary's line rises as it gets more of the traffic.",
            "reqps",
            Query(total(rate(REQUESTS), *VERSION), BY_VERSION),
        ),
        graph(
            "p99 by version",
            "99 of 100 of a version's requests took less.",
            "s",
            Query(quantile(0.99, rate(f"{SECONDS}_bucket"), *VERSION), BY_VERSION),
        ),
        graph(
            "Time in the model by version",
            "Mean time of the predict stage: the model's own part, whatever else the pods do.",
            "s",
            Query(share(rate(f"{stage}_sum", predict), rate(f"{stage}_count", predict), *VERSION), BY_VERSION),
        ),
    ]


def _saturation() -> list[Panel]:
    return [
        graph(
            "In progress",
            "Requests in hand, by pod. At the limit (MUELLE_MAX_CONCURRENCY for each worker) the next are turned away.",
            "none",
            Query(total(series("muelle_requests_in_progress"), "pod"), "{{pod}}"),
        ),
        graph(
            "Turned away",
            "Requests per second that got 503 because a worker had its hands full.",
            "reqps",
            Query(total(rate("muelle_shed_total", of=PODS), "reason"), "{{reason}}"),
        ),
        graph(
            "Pods by slot",
            "Pods whose metrics Prometheus gets, by slot of a release.",
            "none",
            Query(pods("release", "release_slot"), "{{release}} {{release_slot}}"),
        ),
        graph(
            "CPU",
            "Cores in use, by pod: the arbiter, its workers and companions.",
            "suffix: cores",
            Query(total(rate("muelle_worker_cpu_seconds_total", of=PODS), "pod"), "{{pod}}"),
        ),
        graph(
            "Memory",
            "What belongs to a pod's processes and to no file; what they share counts once.",
            "bytes",
            Query(total(series("muelle_worker_memory_bytes", of=PODS), "pod"), "{{pod}}"),
        ),
        graph(
            "Workers lost",
            "Workers that died or were killed, in each interval. Recycling after MUELLE_MAX_REQUESTS is not counted.",
            "none",
            Query(
                total(f"increase({series('muelle_worker_failures_total', of=PODS)}[$__rate_interval])", "pod"),
                "{{pod}}",
            ),
        ),
    ]


def _models() -> list[Panel]:
    keys = {"namespace": "Namespace", "model": "Model", "version": "Version", "engine": "Engine", "digest": "Digest"}
    loaded = f"count by ({', '.join(keys)}) ({series('muelle_model_info')})"
    return [
        table(
            "Loaded models",
            "What pods have loaded now, with which engine, from which manifest (its SHA-256).",
            keys,
            {"Pods": Column(loaded, "none")},
        ),
        graph(
            "Load time",
            "From opening a bundle to a warm model, in the slowest worker.",
            "s",
            Query(f"max by (model, version) ({series('muelle_model_load_seconds')})", BY_VERSION),
            width=6,
        ),
        graph(
            "Failed loads",
            "Attempts to load a version that failed, in each interval; /readyz says why.",
            "none",
            Query(
                total(f"increase({series('muelle_model_load_failures_total')}[$__rate_interval])", *VERSION), BY_VERSION
            ),
            width=6,
        ),
    ]
