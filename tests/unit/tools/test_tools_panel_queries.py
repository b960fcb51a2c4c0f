import pytest

from tools.panel_queries import QueryError, fill, legend, panels


def test_variables_are_filled_in_both_ways_of_writing_and_groups_of_a_regular_expression_stay():
    text = 'label_replace(rate(x{a=~"$model"}[${__rate_interval}]), "b", "$1", "c", "(.+)")'
    filled = fill(text, {"model": "iris", "__rate_interval": "1m"})
    assert filled == 'label_replace(rate(x{a=~"iris"}[1m]), "b", "$1", "c", "(.+)")'


def test_a_longer_name_is_not_a_shorter_one():
    assert fill("$model $model_version", {"model": "a", "model_version": "b"}) == "a b"


def test_a_variable_that_nobody_gave_is_refused():
    with pytest.raises(QueryError, match=r"x\{a=~'\$nobody'\}: no such variable: nobody"):
        fill("x{a=~'$nobody'}", {"model": "iris"})


def test_a_legend_has_the_labels_that_there_are():
    assert legend("{{model}} {{ version }} p99", {"model": "iris", "version": "1"}) == "iris 1 p99"
    assert legend("{{pod}}", {}) == ""


def test_panels_are_read_without_the_rows_that_hold_them():
    field = {"defaults": {"unit": "s"}}
    targets = [{"expr": "a", "legendFormat": "{{b}}"}, {"expr": "c", "instant": True}]
    document = {
        "uid": "u",
        "panels": [
            {"type": "row", "title": "r"},
            {"type": "stat", "title": "t", "fieldConfig": field, "targets": targets},
        ],
    }
    (panel,) = panels(document)
    assert (panel.dashboard, panel.kind, panel.title, panel.unit) == ("u", "stat", "t", "s")
    assert [(one.expression, one.legend, one.instant) for one in panel.targets] == [
        ("a", "{{b}}", False),
        ("c", "", True),
    ]
