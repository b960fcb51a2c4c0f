"""The kinds of panels, in one look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model

Panel = Builder[model.Panel]
Stack = Literal["none", "normal", "percent"]

DATASOURCE: Final = common_model.DataSourceRef(type_val="prometheus", uid="$datasource")
GREEN, ORANGE, RED = "green", "orange", "red"


class Query(NamedTuple):
    """PromQL, and how its series are called: ``{{label}}`` is a label's value."""

    expression: str
    legend: str = ""


class Column(NamedTuple):
    """A column of a table: PromQL whose labels are the table's keys, and the unit."""

    expression: str
    unit: str


def _target(query: Query, place: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(DATASOURCE).expr(query.expression).ref_id(chr(ord("A") + place))
    return target.legend_format(query.legend) if query.legend else target


def _thresholds(steps: Sequence[tuple[float, str]]) -> dashboard.ThresholdsConfig:
    """Return thresholds: green, and from each value on another colour."""
    found = [model.Threshold(value=None, color=GREEN)]
    found += [model.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def stat_panel(
    title: str,
    description: str,
    unit: str,
    expression: str,
    *,
    thresholds: Sequence[tuple[float, str]] = (),
    width: int = 4,
    instant: bool = False,
    empty: str = "no data",
) -> Panel:
    """Return one number, over its own course unless it is asked for once."""
    target = _target(Query(expression), 0)
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .with_target(target.instant() if instant else target.range())
        .thresholds(_thresholds(thresholds))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common_model.BigValueGraphMode.NONE if instant else common_model.BigValueGraphMode.AREA)
        .no_value(empty)
        .span(width)
        .height(4)
    )
    if not thresholds:
        panel.color_mode(common_model.BigValueColorMode.NONE)
    return panel


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    stack: Stack = "none",
    thresholds: Sequence[tuple[float, str]] = (),
    maximum: float | None = None,
) -> Panel:
    """Return lines over time, or areas on one another."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .targets([_target(query, place).range() for place, query in enumerate(queries)])
        .min(0)
        .span(width)
        .height(8)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.TABLE)
            .placement(common_model.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_model.TooltipDisplayMode.MULTI)
            .sort(common_model.SortOrder.DESCENDING)
        )
    )
    if maximum is not None:
        panel.max(maximum)
    if stack != "none":
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode(stack))).fill_opacity(40)
    if thresholds:
        panel.thresholds(_thresholds(thresholds)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED)
        )
    return panel


def heat_map(title: str, description: str, unit: str, buckets: str, *, width: int = 8) -> Panel:
    """Return a histogram over time; `buckets` is the increase of its buckets by ``le``."""
    target = _target(Query(buckets, "{{le}}"), 0).range().format(prometheus_model.PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .with_target(target)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().mode(heatmap_model.HeatmapColorMode.SCHEME).scheme("Blues").steps(32))
        # An empty cell has no colour.
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_value(common_model.VisibilityMode.NEVER)
        .show_legend()
        .span(width)
        .height(8)
    )


def table_panel(
    title: str,
    description: str,
    keys: Mapping[str, str],
    columns: Mapping[str, Column],
    *,
    width: int = 12,
    sort_by: str | None = None,
) -> Panel:
    """Return a table of what is so now.

    Parameters
    ----------
    keys : mapping
        The labels that tell rows apart, in order, with their headings. Each column's series must have just these.
    columns : mapping
        Heading to column.
    sort_by : str, optional
        Heading of the column with the largest first.
    """
    values = {f"Value #{chr(ord('A') + place)}": heading for place, heading in enumerate(columns)}
    # Grafana calls the only column so.
    renamed = {**keys, **values} if len(values) > 1 else {**keys, "Value": next(iter(columns))}
    organize = {
        "excludeByName": {"Time": True},
        "indexByName": {name: place for place, name in enumerate(renamed)},
        "renameByName": renamed,
    }
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .unit(next(iter(columns.values())).unit)
        .datasource(DATASOURCE)
        .targets(
            [
                _target(Query(column.expression), place).instant().format(prometheus_model.PromQueryFormat.TABLE)
                for place, column in enumerate(columns.values())
            ]
        )
        .transformations(
            [
                model.DataTransformerConfig(id_val="merge", options={}),
                model.DataTransformerConfig(id_val="organize", options=organize),
            ]
        )
        .filterable(True)
        .span(width)
        .height(8)
    )
    for heading, column in columns.items():
        panel.override_by_name(heading, [model.DynamicConfigValue(id_val="unit", value=column.unit)])
    if sort_by is not None:
        panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    return panel
