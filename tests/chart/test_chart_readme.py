"""The chart's README and schema say what values.yaml says, and each example says what it needs."""

import pytest
from rendering import CHART, EXAMPLES

from tools.chart_readme import wanted


def test_the_table_of_values_and_the_schema_are_up_to_date():
    for path, text in wanted(CHART).items():
        assert path.read_text() == text, f"{path}: run `make sync`"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_begins_with_what_it_is_for_and_needs(example):
    head = example.read_text().split("\n\n")[0]
    comment = " ".join(line.lstrip("# ") for line in head.splitlines() if line.startswith("#"))
    assert head.startswith("# ")
    assert "Needs" in comment
