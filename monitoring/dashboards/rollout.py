"""*Rollout*: two slots of a release beside each other, and what share of the traffic each really gets."""

from __future__ import annotations

from typing import Any

from monitoring.dashboards.layout import assemble
from monitoring.dashboards.panels import Column, Panel, Query, graph
from monitoring.dashboards.panels import table_panel as table
from monitoring.dashboards.promql import MODELS, PODS, SLOT, increase, mean, quantile, rate, series, share, total
from monitoring.dashboards.service import ARBITER, CALLER_ERRORS, REQUESTS, SECONDS, SERVER_ERRORS

#: Only what a release's monitors scrape has a slot.
IN_SLOT = 'release_slot!=""'
BY_SLOT = "{{release}} {{release_slot}}"
RELEASE = ("namespace", "release")


def of_whole(part: str, *by: str) -> str:
    """Return each slot's share of its release; `part` is a rate or an increase of the slots' series."""
    whole = f"({total(part, *RELEASE)} > 0)"
    return f"{total(part, *SLOT, *by)} / on ({', '.join(RELEASE)}) group_left () {whole}"


def build() -> Any:
    """Return the dashboard."""
    return assemble(
        "rollout",
        "Muelle / Rollout",
        "Slots a and b of each release: versions, pods, the share of the traffic that each really gets, and whether "
        "the candidate's answers differ.",
        {
            "Slots": _slots(),
            "Traffic and pods": _traffic(),
            "Do they serve alike": _service(),
            "Do they decide alike": _answers(),
        },
    )


def _slots() -> list[Panel]:
    keys = {"namespace": "Namespace", "release": "Release", "release_slot": "Slot"}
    requests = increase(REQUESTS, IN_SLOT)
    bounds = increase(f"{SECONDS}_bucket", IN_SLOT)
    return [
        table(
            "Slots",
            "Each slot over all that is shown. Which of the two is the stable one, `muelle status` says.",
            keys,
            {
                "Pods": Column(_pods(), "none"),
                "Share": Column(of_whole(requests), "percentunit"),
                "Requests": Column(total(requests, *SLOT), "short"),
                "5xx": Column(share(increase(REQUESTS, IN_SLOT, SERVER_ERRORS), requests, *SLOT), "percentunit"),
                "4xx": Column(share(increase(REQUESTS, IN_SLOT, CALLER_ERRORS), requests, *SLOT), "percentunit"),
                "p50": Column(quantile(0.5, bounds, *SLOT), "s"),
                "p99": Column(quantile(0.99, bounds, *SLOT), "s"),
            },
        ),
        table(
            "Versions in slots",
            "Pods of each slot that have loaded a version.",
            {**keys, "model": "Model", "version": "Version"},
            {"Pods with it": Column(_loaded(*SLOT, "model", "version"), "none")},
        ),
    ]


def _pods() -> str:
    memory = series("muelle_worker_memory_bytes", IN_SLOT, ARBITER, of=PODS)
    return f"count by ({', '.join(SLOT)}) (count by ({', '.join(SLOT)}, pod, instance) ({memory}))"


def _loaded(*by: str) -> str:
    info = series("muelle_model_info", IN_SLOT)
    return f"count by ({', '.join(by)}) (count by ({', '.join(by)}, pod, instance) ({info}))"


def _traffic() -> list[Panel]:
    return [
        graph(
            "Share of the traffic",
            "Of a release's requests, what each slot answered: the weight that is in effect, whatever was asked for. "
            "Copies (mirroring) and requests with the testers' header count too.",
            "percentunit",
            Query(of_whole(rate(REQUESTS, IN_SLOT)), BY_SLOT),
            width=12,
            stack="normal",
            maximum=1,
        ),
        graph(
            "Requests by slot",
            "Requests answered per second.",
            "reqps",
            Query(total(rate(REQUESTS, IN_SLOT), *SLOT), BY_SLOT),
            width=12,
            stack="normal",
        ),
        graph(
            "Pods by slot",
            "Pods whose metrics Prometheus gets.",
            "none",
            Query(_pods(), BY_SLOT),
            width=12,
        ),
        graph(
            "Pods ready with a version",
            "Pods that have verified, loaded and tried a version: a slot with fewer than it has pods is still "
            "starting, or can't load it.",
            "none",
            Query(_loaded(*SLOT, "model", "version"), f"{BY_SLOT}: {{{{model}}}} {{{{version}}}}"),
            width=12,
        ),
    ]


def _service() -> list[Panel]:
    buckets = rate(f"{SECONDS}_bucket", IN_SLOT)
    requests = rate(REQUESTS, IN_SLOT)
    return [
        graph(
            "Server errors by slot",
            "Share of a slot's requests that were answered with 5xx.",
            "percentunit",
            Query(share(rate(REQUESTS, IN_SLOT, SERVER_ERRORS), requests, *SLOT), BY_SLOT),
        ),
        graph(
            "Refused input by slot",
            "Share of a slot's requests that were answered with 4xx: a candidate may take less than the stable "
            "version.",
            "percentunit",
            Query(share(rate(REQUESTS, IN_SLOT, CALLER_ERRORS), requests, *SLOT), BY_SLOT),
        ),
        graph(
            "Latency by slot",
            "Half of the requests, and 99 of 100, took less.",
            "s",
            *[Query(quantile(q, buckets, *SLOT), f"{BY_SLOT} p{round(q * 100)}") for q in (0.5, 0.99)],
        ),
        graph(
            "Workers lost by slot",
            "Workers that died or were killed, in each interval.",
            "none",
            Query(
                total(f"increase({series('muelle_worker_failures_total', IN_SLOT, of=PODS)}[$__rate_interval])", *SLOT),
                BY_SLOT,
            ),
        ),
        graph(
            "CPU for a prediction",
            "CPU time of a slot's pods for each row that they predict.",
            "s",
            Query(
                f"{total(rate('muelle_worker_cpu_seconds_total', IN_SLOT, of=PODS), *SLOT)} / "
                f"({total(rate('muelle_batch_rows_sum', IN_SLOT, of=PODS), *SLOT)} > 0)",
                BY_SLOT,
            ),
        ),
        graph(
            "Failed loads by slot",
            "Attempts to load a version that failed, in each interval.",
            "none",
            Query(
                total(
                    f"increase({series('muelle_model_load_failures_total', IN_SLOT, of=MODELS)}[$__rate_interval])",
                    *SLOT,
                ),
                BY_SLOT,
            ),
        ),
    ]


def _answers() -> list[Panel]:
    classes = rate("muelle_predictions_total", IN_SLOT)
    by = (*SLOT, "model")
    shares = f"{total(classes, *by, 'class')} / on ({', '.join(by)}) group_left () ({total(classes, *by)} > 0)"
    confidence = "muelle_prediction_confidence"
    return [
        graph(
            "Share of each class by slot",
            "Of a slot's rows. With the same kind of requests, the two slots' lines of a class should lie together.",
            "percentunit",
            Query(shares, f"{BY_SLOT}: {{{{model}}}} {{{{class}}}}"),
            width=12,
            maximum=1,
        ),
        graph(
            "Confidence by slot",
            "Mean of a row's largest probability, where probabilities were asked for.",
            "percentunit",
            Query(mean(confidence, *by), f"{BY_SLOT}: {{{{model}}}}"),
            width=12,
            maximum=1,
        ),
    ]
