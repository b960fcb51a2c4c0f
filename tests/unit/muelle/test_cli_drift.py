"""``muelle drift`` on real rows and a real bundle."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from muelle.bundle import save
from muelle.cli import main


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame = load_iris(as_frame=True).data.set_axis(["sl", "sw", "pl", "pw"], axis=1)
    model = LogisticRegression(max_iter=500).fit(frame, load_iris().target)
    return save(model, frame, name="iris", repository=tmp_path_factory.mktemp("models"), version="1")


def _rows(count: int) -> pd.DataFrame:
    frame = load_iris(as_frame=True).data.set_axis(["sl", "sw", "pl", "pw"], axis=1)
    return frame.iloc[np.random.default_rng(3).integers(0, len(frame), count)]


def _run(*arguments: object):
    return CliRunner().invoke(main, ["drift", *map(str, arguments)])


def test_undrifted_rows_exit_with_0_and_each_column_is_listed(bundle: Path, tmp_path: Path):
    _rows(600).to_parquet(tmp_path / "rows.parquet")
    result = _run("--from", tmp_path / "rows.parquet", "--bundle", bundle, "--output", "json")
    assert result.exit_code == 0, result.output
    columns = {item["column"]: item for item in json.loads(result.stdout)["columns"]}
    assert set(columns) == {"sl", "sw", "pl", "pw", "(predict)", "(confidence)"}
    assert {item["state"] for item in columns.values()} == {"stable"}
    assert columns["sl"]["observations"] == 600
    assert sum(item["observed"] for item in columns["sl"]["bins"]) == pytest.approx(1)


def test_a_drifted_column_exits_with_3_and_the_page_names_it(bundle: Path, tmp_path: Path):
    _rows(600).assign(pw=lambda frame: frame.pw + 1).to_csv(tmp_path / "rows.csv", index=False)
    result = _run("--from", tmp_path / "rows.csv", "--bundle", bundle, "--html", tmp_path / "drift.html")
    assert result.exit_code == 3, result.output
    line = next(line for line in result.stdout.splitlines() if line.split()[:1] == ["pw"])
    assert line.split()[-1] == "drifted"
    page = (tmp_path / "drift.html").read_text()
    assert "have drifted: pw" in page
    HTMLParser().feed(page)
    assert page.count("<svg") == 6
    assert "http" not in page


def test_rows_that_the_model_refuses_still_have_their_features_compared(bundle: Path, tmp_path: Path):
    rows = _rows(300)
    rows.iloc[:100, 0] = np.nan
    rows.to_csv(tmp_path / "rows.csv", index=False)
    result = _run("--from", tmp_path / "rows.csv", "--bundle", bundle)
    assert result.exit_code == 3
    assert "predictions are not compared" in result.stderr
    assert "(predict)" not in result.stdout


def test_a_table_without_a_feature_is_refused_by_its_name(bundle: Path, tmp_path: Path):
    _rows(300).drop(columns="sw").to_csv(tmp_path / "rows.csv", index=False)
    result = _run("--from", tmp_path / "rows.csv", "--bundle", bundle)
    assert result.exit_code == 1
    assert "missing sw" in result.stderr


def test_rows_with_a_field_too_many_are_refused(bundle: Path, tmp_path: Path):
    (tmp_path / "rows.csv").write_text("sl,sw,pl,pw\n" + "5.1,3.5,1.4,0.2,0\n" * 300)
    result = _run("--from", tmp_path / "rows.csv", "--bundle", bundle)
    assert result.exit_code == 1
    assert f"Error: {tmp_path}/rows.csv: rows have more fields than the header" in result.stderr


def test_a_category_na_in_a_csv_is_what_it_is_in_parquet(tmp_path: Path):
    rows = pd.DataFrame({"country": ["NA", "ES", "ES"] * 100, "pay": np.arange(300.0)})
    columns = [("words", OneHotEncoder(), ["country"]), ("numbers", "passthrough", ["pay"])]
    model = make_pipeline(ColumnTransformer(columns), LinearRegression()).fit(rows, rows["pay"])
    path = save(model, rows, name="countries", repository=tmp_path / "models", version="1", onnx=False)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_parquet(tmp_path / "rows.parquet")
    found = [
        _run("--from", tmp_path / name, "--bundle", path, "--output", "json") for name in ("rows.csv", "rows.parquet")
    ]
    assert [result.exit_code for result in found] == [0, 0]
    assert found[0].stdout == found[1].stdout


def test_a_page_that_cannot_be_written_leaves_nothing_behind(bundle: Path, tmp_path: Path):
    _rows(300).to_csv(tmp_path / "rows.csv", index=False)
    result = _run("--from", tmp_path / "rows.csv", "--bundle", bundle, "--html", tmp_path / "no" / "drift.html")
    assert result.exit_code == 1
    assert "can't be written" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
