"""What all dashboards share besides their panels: variables, marks of events, links to one another, places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard, prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from monitoring.dashboards import promql
from monitoring.dashboards.panels import DATASOURCE, RED, Panel

#: One tag for all: the links between the dashboards go by it.
TAG: Final = "muelle"


def _variable(name: str, label: str, values: str) -> dashboard.QueryVariable:
    query = {"qryType": 1, "query": values, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .definition(values)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def variables() -> list[Builder[model.VariableModel]]:
    """Return what all dashboards can be narrowed by; each choice narrows those after it."""
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    where, which = 'namespace=~"$namespace"', promql.PODS
    return [
        source,
        _variable("namespace", "Namespace", "label_values(muelle_worker_memory_bytes, namespace)"),
        _variable("release", "Release", f"label_values(muelle_worker_memory_bytes{{{where}}}, release)"),
        _variable("model", "Model", f"label_values(muelle_requests_total{{{which}}}, model)"),
        _variable("version", "Version", f'label_values(muelle_requests_total{{{which}, model=~"$model"}}, version)'),
    ]


def feature_variable() -> Builder[model.VariableModel]:
    """Return the choice of features, for the dashboard that has panels by feature."""
    values = f"label_values({promql.series('muelle_feature_reference_observations')}, feature)"
    return _variable("feature", "Feature", values)


def _annotation(name: str, color: str, expression: str, title: str, text: str) -> dashboard.AnnotationQuery:
    target = prometheus.Dataquery().expr(expression).ref_id("Anno")
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(color)
        .target(target)
        .expr(expression)
        .step("1m")
        .title_format(title)
        .text_format(text)
    )


def _annotations() -> list[Builder[model.AnnotationQuery]]:
    loaded = f"group by (namespace, model, version) ({promql.series('muelle_model_info')})"
    before = f"group by (namespace, model, version) ({promql.series('muelle_model_info')} offset 1m)"
    alerts = 'ALERTS{alertname=~"Muelle.+", alertstate="firing", namespace=~"$namespace"}'
    return [
        _annotation("Version loaded", "blue", f"{loaded} unless {before}", "{{model}} {{version}}", "loaded"),
        _annotation("Alert", RED, alerts, "{{alertname}}", "{{severity}} {{model}} {{version}} {{feature}}"),
    ]


def assemble(
    name: str,
    title: str,
    description: str,
    sections: Mapping[str, Sequence[Panel]],
    *,
    shows: str = "now-1h",
    more_variables: Sequence[Builder[model.VariableModel]] = (),
) -> model.Dashboard:
    """Return a dashboard.

    Parameters
    ----------
    name : str
        Ends the uid, which links and bookmarks go by: never change one.
    title, description : str
    sections : mapping
        Heading to panels, from left to right; their widths have to fill lines of 24.
    shows : str
        Where the time range begins when it is opened.
    more_variables : sequence
        After those that all dashboards have.
    """
    built = dashboard.Dashboard(title).uid(f"muelle-{name}").description(description).tags([TAG])
    built.time(shows, "now").refresh("30s").tooltip(model.DashboardCursorSync.CROSSHAIR)
    built.variables([*variables(), *more_variables]).annotations(_annotations())
    built.link(
        dashboard.DashboardLink("Muelle")
        .type(model.DashboardLinkType.DASHBOARDS)
        .icon("dashboard")
        .tooltip("The other dashboards, with the same choices and the same time")
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )
    for heading, panels in sections.items():
        built.with_row(dashboard.Row(heading))
        for panel in panels:
            built.with_panel(panel)
    found: model.Dashboard = built.build()
    for link in found.links or []:
        # The SDK's default hides it in a menu; its own writer leaves None out, which its type does not know of.
        link.placement = None  # type: ignore[assignment]
    all_panels: list[Any] = list(found.panels or [])
    for number, panel in enumerate(all_panels, start=1):
        panel.id_val = number
    return found
