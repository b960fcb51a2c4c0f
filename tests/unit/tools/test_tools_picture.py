import math
import re
from xml.etree import ElementTree

import pytest

from tools.picture_parts import Chart, Number, Table, buckets, highest, runs, stacked, ticks, written
from tools.picture_svg import picture

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.12345, "percentunit", "12.3 %"),
        (0, "percentunit", "0 %"),
        (0.0123, "s", "12.3 ms"),
        (0.00025, "s", "250 µs"),
        (90, "s", "1.5 min"),
        (0, "s", "0"),
        (3 * 2**20, "bytes", "3 MiB"),
        (12.345, "reqps", "12.3 req/s"),
        (12345.6, "rowsps", "12,346 rows/s"),
        (0.000333, "currencyUSD", "$0.000333"),
        (14.4, "suffix: x", "14.4 x"),
        (100, "none", "100"),
        (math.nan, "none", "no number"),
    ],
)
def test_numbers_are_written_in_their_unit(value, unit, text):
    assert written(value, unit) == text


@pytest.mark.parametrize(
    ("maximum", "unit", "expected"),
    [
        (1, "none", [0, 0.25, 0.5, 0.75, 1]),
        (7, "none", [0, 2, 4, 6, 8]),
        (0, "none", [0, 1]),
        (150 * 2**20, "bytes", [0, 50 * 2**20, 100 * 2**20, 150 * 2**20]),
        (2400, "s", [0, 600, 1200, 1800, 2400]),
    ],
)
def test_an_axis_has_round_steps_up_to_its_maximum(maximum, unit, expected):
    assert ticks(maximum, unit) == pytest.approx(expected)


def test_a_gap_and_what_is_no_number_interrupt_a_line():
    points = [(0, 1.0), (10, 2.0), (20, math.nan), (30, 3.0), (40, 4.0)]
    assert runs(points, 10) == [[(0, 1.0), (10, 2.0)], [(30, 3.0), (40, 4.0)]]


def test_areas_lie_on_one_another_and_shares_add_up_to_one():
    series = [("a", [(0, 1.0), (1, 3.0)]), ("b", [(1, 1.0)])]
    assert stacked(series, shares=False) == [("a", [(0, 0, 1), (1, 0, 3)]), ("b", [(0, 1, 1), (1, 3, 4)])]
    assert stacked(series, shares=True) == [("a", [(0, 0, 1), (1, 0, 0.75)]), ("b", [(0, 1, 1), (1, 0.75, 1)])]
    assert highest(Chart("t", "none", "stacked", series)) == 4


def test_a_cumulative_histogram_becomes_what_is_in_each_bucket():
    cumulative = [("0.1", [(0, 2.0)]), ("0.5", [(0, 5.0)]), ("+Inf", [(0, 5.0)])]
    assert buckets(cumulative) == [("0.1", {0: 2.0}), ("0.5", {0: 3.0}), ("+Inf", {0: 0.0})]


def drawn(*parts, numbers=()):
    text = picture("Title", "A note & more", numbers, parts, 120.0, 10.0)
    return text, ElementTree.fromstring(text)


def texts(root):
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def test_a_picture_says_its_title_its_note_and_its_numbers():
    text, root = drawn(numbers=[Number("Requests", "5 <req/s>")])
    assert texts(root)[:4] == ["Title", "A note & more", "Requests", "5 <req/s>"]
    assert "prefers-color-scheme: dark" in text
    assert root.find(f"{SVG}desc").text == "A note & more"


def test_lines_have_their_colour_in_the_legend_and_a_limit_is_in_sight():
    points = [(float(at), 0.1) for at in range(0, 120, 10)]
    _, root = drawn(Chart("Drift", "none", "lines", [("a", points), ("b", points)], thresholds=[0.2]))
    assert [path.get("class") for path in root.iter(f"{SVG}path")] == ["l0", "l1"]
    (limit,) = [line for line in root.iter(f"{SVG}line") if line.get("class") == "limit"]
    assert 30 < float(limit.get("y1")) < 200
    assert {"a", "b"} <= set(texts(root))


def test_a_legend_leaves_the_plot_room():
    points = [(0.0, 1.0), (10.0, 1.0)]
    _, root = drawn(Chart("Drift", "none", "lines", [(f"a feature with a long name {n}", points) for n in range(20)]))
    assert "and 14 more" in texts(root)
    heights = [float(y) for path in root.iter(f"{SVG}path") for y in re.findall(r" ([\d.]+)", path.get("d"))]
    assert min(heights) < 60


def test_a_heat_map_has_a_cell_for_each_bucket_with_something_in_it():
    cumulative = [("0.1", [(10.0, 2.0)]), ("0.5", [(10.0, 5.0), (20.0, 1.0)]), ("+Inf", [(10.0, 5.0), (20.0, 1.0)])]
    _, root = drawn(Chart("Latency", "s", "heat", cumulative))
    cells = [cell for cell in root.iter(f"{SVG}rect") if cell.get("fill-opacity")]
    assert len(cells) == 3
    assert max(float(cell.get("fill-opacity")) for cell in cells) == 1.0


def test_a_table_ends_where_its_panel_does():
    _, root = drawn(Table("Bins", ["Bin", "Observed"], [[str(place), "1 %"] for place in range(50)]))
    found = texts(root)
    assert found[2:6] == ["Bins", "Bin", "Observed", "0"]
    assert "49" not in found
