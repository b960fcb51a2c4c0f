"""``muelle predict``: every kind of input, and answers that are the estimator's own."""

import json

import joblib
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


@pytest.fixture
def predicted(muelle, repository):
    """Run ``muelle predict`` and return its JSON."""

    def run(*arguments, stdin=None):
        result = muelle("predict", *arguments, "--repository", repository, "--output", "json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


@pytest.fixture
def refused(muelle, repository):
    """Run ``muelle predict``, which must fail in one line; return that line."""

    def run(*arguments, stdin=None):
        result = muelle("predict", *arguments, "--repository", repository, stdin=stdin)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.count("\n") == 1
        return result.stderr

    return run


@pytest.mark.parametrize(
    "body",
    [
        b"[5.1, 3.5, 1.4, 0.2]",
        b"[[5.1, 3.5, 1.4, 0.2]]",
        b'{"features": [5.1, 3.5, 1.4, 0.2]}',
        b'{"features": [[5.1, 3.5, 1.4, 0.2]]}',
        b'{"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}',
    ],
)
def test_json_from_standard_input(predicted, body):
    assert predicted("iris", "-", stdin=body) == {
        "model": "iris",
        "version": "1",
        "engine": "onnx",
        "predictions": [0],
    }


@pytest.mark.parametrize("engine", ["onnx", "joblib"])
def test_linear_answers_12(predicted, engine):
    assert predicted("linear@1", "-", "--engine", engine, stdin=b'{"input": [6]}')["predictions"] == [12.0]


@pytest.mark.parametrize("table", ["iris.csv", "iris-index.csv", "iris.parquet"])
def test_tables(predicted, brought, repository, table):
    found = predicted("iris", brought / table, "--drop", "target", "--proba")
    estimator = joblib.load(repository / "iris/1/model.joblib")
    rows = pd.read_csv(brought / "features.csv")
    assert found["predictions"] == estimator.predict(rows).tolist()
    assert found["classes"] == [0, 1, 2]
    assert found["probabilities"] == [pytest.approx(row, abs=1e-6) for row in estimator.predict_proba(rows).tolist()]


def test_columns_go_by_name_not_by_place(predicted, brought, tmp_path):
    rows = pd.read_csv(brought / "features.csv")
    rows[rows.columns[::-1]].to_csv(tmp_path / "turned.csv", index=False)
    assert predicted("iris", tmp_path / "turned.csv") == predicted("iris", brought / "features.csv")


def test_tsv_and_named_kinds(predicted, brought, tmp_path):
    rows = pd.read_csv(brought / "features.csv").head(3)
    rows.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")
    rows.to_csv(tmp_path / "rows.txt", index=False)
    (tmp_path / "rows.json").write_text(json.dumps(rows.to_dict("records")))
    expected = predicted("iris", "-", "--input", "csv", stdin=(tmp_path / "rows.txt").read_bytes())
    assert len(expected["predictions"]) == 3
    assert predicted("iris", tmp_path / "rows.tsv") == expected
    assert predicted("iris", tmp_path / "rows.txt", "--input", "csv") == expected
    assert predicted("iris", tmp_path / "rows.json") == expected


def test_mixed_tables_keep_codes_and_missing_values(muelle, predicted, brought, tmp_path):
    arguments = ("--sample", brought / "churn.parquet", "--repository", tmp_path)
    assert muelle("bundle", brought / "churn.joblib", *arguments).exit_code == 0
    rows = pd.read_parquet(brought / "churn.parquet")
    expected = joblib.load(brought / "churn.joblib").predict(rows).tolist()
    found = predicted(tmp_path / "churn", brought / "churn.csv", "--drop", "churned")
    assert found["predictions"] == expected
    assert predicted(tmp_path / "churn", brought / "churn.parquet")["predictions"] == expected


def test_a_category_na_in_a_csv_is_what_it_is_in_parquet(predicted, tmp_path):
    from muelle.bundle import save

    rows = pd.DataFrame({"country": ["NA", "ES", "None"] * 10, "pay": [1.0, 2.0, 3.0] * 10})
    columns = [("words", OneHotEncoder(), ["country"]), ("numbers", "passthrough", ["pay"])]
    target = [10.0, 20.0, 30.0] * 10
    model = make_pipeline(ColumnTransformer(columns), LinearRegression()).fit(rows, target)
    path = save(model, rows, name="countries", repository=tmp_path / "models", onnx=False)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_parquet(tmp_path / "rows.parquet")
    found = predicted(path, tmp_path / "rows.csv")
    assert found["predictions"] == pytest.approx(target)
    assert found == predicted(path, tmp_path / "rows.parquet")


def test_a_model_without_names_takes_columns_by_place(predicted, brought, tmp_path):
    from muelle.bundle import save

    estimator = joblib.load(brought / "forest.joblib")
    rows = pd.read_csv(brought / "features.csv")
    path = save(estimator, rows.to_numpy(), name="nameless", repository=tmp_path, onnx=False)
    assert predicted(path, brought / "features.csv")["predictions"] == estimator.predict(rows.to_numpy()).tolist()


def test_the_table_and_csv(muelle, repository, brought):
    common = ("predict", "iris", brought / "features.csv", "--repository", repository, "--proba")
    table = muelle(*common).stdout
    assert "iris 1 (onnx)" in table
    assert "probability_2" in table
    lines = muelle(*common, "--output", "csv").stdout.splitlines()
    assert lines[0] == "prediction,probability_0,probability_1,probability_2"
    assert len(lines) == 151
    assert lines[1].startswith("0,")


def test_a_table_shows_values_in_full(muelle, repository):
    out = muelle("predict", "linear", "-", "--repository", repository, stdin=b"[[6], [6.123456789]]").stdout
    assert "12.0" in out
    assert "12.246913578" in out


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[1, 2, 3]", "expected 4 features"),
        (b'[[1, 2, 3, "x"]]', 'rows[0][3]: expected a number, got "x"'),
        (b'[{"a": 1}]', "missing sepal length (cm)"),
        (b"[]", "expected at least one row"),
        (b"3", "standard input: expected rows"),
        (b"{", "standard input: not JSON"),
        (b"\xff", "standard input: not JSON"),
        (b"[[1, 2, 3, NaN]]", "NaN is not JSON"),
    ],
)
def test_bad_json(refused, body, text):
    assert text in refused("iris", "-", stdin=body)


def test_bad_tables(refused, brought, tmp_path):
    assert "no feature of the model: target; --drop" in refused("iris", brought / "iris.csv")
    assert "no column species to leave out" in refused("iris", brought / "iris.csv", "--drop", "species")
    assert "nothing.csv: can't be read: No such file" in refused("iris", tmp_path / "nothing.csv")
    (tmp_path / "bad.csv").write_text("")
    assert "bad.csv: can't be read" in refused("iris", tmp_path / "bad.csv")
    (tmp_path / "words.csv").write_text(
        "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n1,2,3,4\n1,2,x,4\n"
    )
    (tmp_path / "long.csv").write_text(
        "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n1,2,3,4,5\n"
    )
    assert "long.csv: rows have more fields than the header" in refused("iris", tmp_path / "long.csv")
    # One word makes pandas take the whole column for words.
    assert "petal length (cm): expected a number, got" in refused("iris", tmp_path / "words.csv")


def test_no_probabilities(refused):
    assert "no probabilities" in refused("linear", "-", "--proba", stdin=b"[1]")


def test_an_engine_that_is_not_there(refused):
    assert "the engine skops is not in the bundle" in refused("iris", "-", "--engine", "skops", stdin=b"[1]")


def test_an_unknown_model(refused):
    assert "no model 'tulip'" in refused("tulip", "-", stdin=b"[1]")


def test_an_unknown_ending_is_wrong_usage(muelle, repository, tmp_path):
    (tmp_path / "rows.xlsx").touch()
    result = muelle("predict", "iris", tmp_path / "rows.xlsx", "--repository", repository)
    assert result.exit_code == 2
    assert "or --input" in result.stderr
