"""The chart's copies are what monitoring/ has: written, replaced, removed, and checked without being touched."""

import pytest

from tools.chart_files import main, stale, wanted


@pytest.fixture
def folders(tmp_path):
    monitoring, chart = tmp_path / "monitoring", tmp_path / "chart"
    (monitoring / "rules" / "tests").mkdir(parents=True)
    (monitoring / "dashboards" / "json").mkdir(parents=True)
    chart.mkdir()
    (monitoring / "rules" / "slo.yml").write_bytes(b"groups: []\n")
    (monitoring / "rules" / "tests" / "slo.test.yml").write_bytes(b"tests: []\n")
    (monitoring / "dashboards" / "json" / "service.json").write_bytes(b'{"title": "\xc3\xbc"}\n')
    return monitoring, chart


def run(folders, *flags):
    monitoring, chart = folders
    main([str(chart), "--monitoring", str(monitoring), *flags])


def test_copies_are_the_sources_byte_for_byte_and_tests_stay_where_they_are(folders):
    run(folders)
    _, chart = folders
    copies = {str(path.relative_to(chart)): path.read_bytes() for path in chart.rglob("*") if path.is_file()}
    assert copies == {
        "files/rules/slo.yml": b"groups: []\n",
        "files/dashboards/service.json": b'{"title": "\xc3\xbc"}\n',
    }


def test_a_changed_source_is_copied_again_and_a_copy_without_one_goes(folders, capsys):
    run(folders)
    monitoring, chart = folders
    (monitoring / "rules" / "slo.yml").write_text("groups: [{}]\n")
    (monitoring / "dashboards" / "json" / "service.json").unlink()
    capsys.readouterr()
    run(folders)
    assert (chart / "files" / "rules" / "slo.yml").read_text() == "groups: [{}]\n"
    assert not (chart / "files" / "dashboards" / "service.json").exists()
    assert len(capsys.readouterr().out.splitlines()) == 2
    run(folders)
    assert capsys.readouterr().out == ""


def test_a_check_says_what_is_out_of_date_and_writes_nothing(folders):
    monitoring, chart = folders
    with pytest.raises(SystemExit, match=r"slo\.yml: is not what monitoring/ has; run `make sync`"):
        run(folders, "--check")
    assert not (chart / "files").exists()
    run(folders)
    run(folders, "--check")
    assert stale(wanted(monitoring, chart), chart) == {}


def test_a_chart_that_is_not_there_is_named(folders):
    monitoring, chart = folders
    with pytest.raises(SystemExit, match="no-chart: expected a chart's folder"):
        main([str(chart.parent / "no-chart"), "--monitoring", str(monitoring)])
