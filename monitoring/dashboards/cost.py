"""*Cost*: CPU time × the price of a core hour, and what a thousand predictions take of it."""

from __future__ import annotations

from typing import Any, Final

from monitoring.dashboards.layout import assemble
from monitoring.dashboards.panels import Panel, Query, graph, stat_panel
from monitoring.dashboards.promql import PODS, RECORDED, increase, rate, series, total

#: Grafana's unit for amounts of money. The rules know no currency: the price has one.
CURRENCY: Final = "currencyUSD"
PRICE: Final = "scalar(muelle:cpu_core_hour:price)"
#: 365 × 24 ÷ 12.
HOURS_OF_A_MONTH: Final = 730
#: Recording rules of a whole namespace.
NAMESPACE: Final = 'namespace=~"$namespace"'
BY_MODEL: Final = "{{namespace}} {{model}} {{version}}"


def recorded(rule: str, of: str = NAMESPACE) -> str:
    """Return a selector of a recording rule."""
    return series(rule, of=of)


def build() -> Any:
    """Return the dashboard."""
    return assemble(
        "cost",
        "Muelle / Cost",
        "What serving costs: CPU time times the price of a core hour, in all, by model, and for 1,000 predictions. "
        "The price is the recording rule muelle:cpu_core_hour:price: in the chart muelle-monitoring the value "
        "cost.cpuCoreHourPrice, else monitoring/rules/cost.yml.",
        {"Now": _now(), "For 1,000 predictions": _per_thousand(), "In all": _whole(), "Idle": _idle()},
        shows="now-24h",
    )


def _now() -> list[Panel]:
    hourly = f"sum({recorded('muelle:cost_per_hour:rate5m')})"
    rows = f"(sum({recorded('muelle:predicted_rows:rate5m')}) > 0)"
    return [
        stat_panel(
            "Price of a core hour",
            "What all amounts here are computed with. Change it in the chart muelle-monitoring (value "
            "cost.cpuCoreHourPrice), or in monitoring/rules/cost.yml, and reload Prometheus; it holds from then on. "
            "For another currency's sign, change the panels' unit.",
            CURRENCY,
            "muelle:cpu_core_hour:price",
        ),
        stat_panel("Per hour", "CPU in use times the price.", CURRENCY, hourly),
        stat_panel("Per month", "The same for 730 hours, at this pace.", CURRENCY, f"{hourly} * {HOURS_OF_A_MONTH}"),
        stat_panel(
            "1,000 predictions",
            "CPU of the chosen namespaces times the price, for 1,000 rows of all of their models.",
            CURRENCY,
            # An hourly amount ÷ 3600 s ÷ rows per second × 1000 rows.
            f"{hourly} / 3.6 / {rows}",
        ),
        stat_panel(
            "In what is shown",
            "CPU seconds used in the time shown times the price.",
            CURRENCY,
            f"{total(increase('muelle_worker_cpu_seconds_total', of=PODS))} / 3600 * {PRICE}",
            instant=True,
        ),
        stat_panel(
            "Rows in what is shown",
            "Rows predicted in the time shown.",
            "short",
            total(increase("muelle_batch_rows_sum")),
            instant=True,
        ),
    ]


def _per_thousand() -> list[Panel]:
    return [
        graph(
            "1,000 predictions by namespace",
            "All CPU of a namespace's pods times the price, idle time included, for 1,000 rows. Falls with traffic.",
            CURRENCY,
            Query(recorded("muelle:cost_per_1000_predictions:ratio_rate5m"), "{{namespace}}"),
            width=12,
        ),
        graph(
            "1,000 predictions by model",
            "A version's part of that, by its share of the time that requests spend in the stages.",
            CURRENCY,
            Query(recorded("muelle:model_cost_per_1000_predictions:ratio_rate5m", RECORDED), BY_MODEL),
            width=12,
        ),
    ]


def _whole() -> list[Panel]:
    used = total(rate("muelle_worker_cpu_seconds_total", of=PODS), "namespace")
    return [
        graph(
            "Per hour by namespace",
            "CPU in use times the price.",
            CURRENCY,
            Query(recorded("muelle:cost_per_hour:rate5m"), "{{namespace}}"),
            stack="normal",
        ),
        graph(
            "Per hour by model",
            "The same, divided among versions by their share of the time that requests spend in the stages.",
            CURRENCY,
            Query(recorded("muelle:model_cost_per_hour:rate5m", RECORDED), BY_MODEL),
            stack="normal",
        ),
        graph(
            "CPU for 1,000 predictions",
            "The same as above without a price: CPU seconds for 1,000 rows of all models.",
            "s",
            Query(
                f"1000 * {used} / ({total(rate('muelle_batch_rows_sum', of=PODS), 'namespace')} > 0)",
                "{{namespace}}",
            ),
        ),
    ]


def _idle() -> list[Panel]:
    requested = 'container="predictor", resource="cpu"'
    reserved = f"sum by (namespace) ({series('kube_pod_container_resource_requests', requested, of=NAMESPACE)})"
    namespaces = recorded("muelle:cpu_cores:rate5m")
    return [
        graph(
            "CPU used outside of requests",
            "Per hour: the CPU in use less the time that requests spend in the stages: HTTP, heartbeats, scrapes, "
            "counting. The stages are measured by the clock, so it is too low where pods wait for a CPU.",
            CURRENCY,
            Query(recorded("muelle:idle_cost_per_hour:rate5m"), "{{namespace}}"),
            width=12,
        ),
        graph(
            "CPU reserved and not used",
            "Per hour: what the pods request of Kubernetes less what they use, times the price: what the cluster "
            "keeps free for them. Needs kube-state-metrics.",
            CURRENCY,
            Query(f"clamp_min({reserved} - on (namespace) {namespaces}, 0) * {PRICE}", "{{namespace}}"),
            width=12,
        ),
    ]
