"""``muelle bundle``: every kind of estimator and table, and everything that goes wrong."""

import json
import pickle
import shlex
import subprocess
import sys
from hashlib import sha256

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.base
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from muelle.bundle import open_bundle
from muelle.inference import Predictor

IRIS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")


@pytest.fixture
def bundle(muelle, tmp_path):
    """Run ``muelle bundle`` into a repository of its own."""

    def run(*arguments):
        return muelle("bundle", *arguments, "--repository", tmp_path / "models")

    return run


def made(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result, *texts):
    """One clear line on standard error, nothing else."""
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for text in texts:
        assert text in result.stderr


@pytest.mark.parametrize("fitted", ["forest.joblib", "compressed.joblib"])
def test_an_estimator_fitted_on_an_array_gets_the_headers_names(bundle, brought, fitted):
    facts = made(bundle(brought / fitted, "--sample", brought / "iris.csv", "--target", "target", "--output", "json"))
    bundled = open_bundle(facts["path"])
    assert bundled.manifest.signature.names == IRIS
    assert bundled.manifest.signature.layout == "matrix"
    X = pd.read_csv(brought / "features.csv")
    expected = joblib.load(brought / fitted).predict(X.to_numpy())
    for engine in ("onnx", "joblib"):
        assert Predictor.load(facts["path"], engine=engine).predict(X).tolist() == expected.tolist()


@pytest.mark.parametrize("table", ["iris.csv", "iris-index.csv", "iris.parquet"])
def test_an_estimator_that_knows_its_names_takes_those_columns(bundle, brought, table):
    result = bundle(brought / "named.pkl", "--sample", brought / table, "--output", "json")
    facts = made(result)
    assert [feature["name"] for feature in facts["signature"]["inputs"]] == list(IRIS)
    assert "left out, since the estimator was fitted without: target" in result.stderr


def test_mixed_columns_keep_their_dtypes(bundle, brought):
    arguments = ("--sample", brought / "churn.csv", "--target", "churned", "--dtype", "zip=string", "--output", "json")
    facts = made(bundle(brought / "churn.joblib", *arguments))
    dtypes = {feature["name"]: feature["dtype"] for feature in facts["signature"]["inputs"]}
    assert dtypes == {"age": "int64", "pay": "float64", "city": "string", "zip": "string", "member": "bool"}
    nullable = [feature["name"] for feature in facts["signature"]["inputs"] if feature["nullable"]]
    assert nullable == ["pay"]
    rows = pd.read_parquet(brought / "churn.parquet")
    expected = joblib.load(brought / "churn.joblib").predict(rows)
    assert Predictor.load(facts["path"]).predict(rows).tolist() == expected.tolist()


def test_parquet_needs_no_dtypes(bundle, brought):
    facts = made(
        bundle(brought / "churn.joblib", "--sample", brought / "churn.parquet", "--allow-missing", "--output", "json")
    )
    assert all(feature["nullable"] for feature in facts["signature"]["inputs"])


def test_codes_with_leading_noughts_are_pointed_out(bundle, brought):
    result = bundle(brought / "churn.joblib", "--sample", brought / "churn.csv", "--target", "churned")
    assert "zip was read as integers, without leading noughts; --dtype zip=string keeps them" in result.stderr


def test_texts(bundle, brought):
    facts = made(
        bundle(brought / "text.joblib", "--sample", brought / "text.csv", "--target", "label", "--output", "json")
    )
    assert facts["signature"]["layout"] == "text"
    assert Predictor.load(facts["path"]).predict([["a good day"]]).tolist() == ["+"]


def test_an_estimator_of_arrays_of_words_gets_them(bundle, tmp_path):
    words = pd.DataFrame({"city": ["Vigo", "Lugo"] * 10, "kind": ["x", "y", "y", "x"] * 5})
    estimator = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(words.to_numpy(object), [0, 1] * 10)
    joblib.dump(estimator, tmp_path / "words.joblib")
    words.to_csv(tmp_path / "words.csv", index=False)
    facts = made(bundle(tmp_path / "words.joblib", "--sample", tmp_path / "words.csv", "--output", "json"))
    assert facts["signature"]["layout"] == "objects"
    answers = Predictor.load(facts["path"]).predict([{"city": "Lugo", "kind": "x"}])
    assert answers.tolist() == [1]


def test_an_estimator_that_can_only_take_arrays_gets_one(bundle, brought, tmp_path):
    X = pd.read_csv(brought / "features.csv")
    estimator = make_pipeline(FunctionTransformer(np.log1p), LinearRegression()).fit(X.to_numpy(), X.iloc[:, 0])
    joblib.dump(estimator, tmp_path / "log.joblib")
    facts = made(bundle(tmp_path / "log.joblib", "--sample", brought / "features.csv", "--output", "json"))
    assert facts["engines"] == ["joblib"]
    assert facts["task"] == "regression"


def test_skops_in_and_out(bundle, brought, tmp_path):
    skops = pytest.importorskip("skops.io")
    skops.dump(joblib.load(brought / "forest.joblib"), tmp_path / "forest.skops")
    arguments = ("--sample", brought / "features.csv", "--format", "skops", "--output", "json")
    facts = made(bundle(tmp_path / "forest.skops", *arguments))
    assert facts["engines"] == ["onnx", "skops"]


def test_what_is_told_is_recorded(bundle, brought):
    facts = made(
        bundle(
            *(brought / "named.pkl", "--sample", brought / "features.csv", "--name", "flowers", "--version", "2024-05"),
            *("--score", "accuracy=0.97", "--score", "auc(a=b)=0.5", "--data", brought / "iris.csv"),
            *("--description", "Three irises.", "--no-onnx", "--holdout", brought / "iris.csv", "--output", "json"),
        )
    )
    bundled = open_bundle(facts["path"])
    assert (bundled.manifest.name, bundled.manifest.version) == ("flowers", "2024-05")
    assert bundled.manifest.scores == {"accuracy": 0.97, "auc(a=b)": 0.5}
    assert bundled.manifest.data_digest == f"sha256:{sha256((brought / 'iris.csv').read_bytes()).hexdigest()}"
    assert bundled.manifest.engines == ("joblib",)
    assert "Three irises." in bundled.read("MODEL_CARD.md").decode()


def test_the_name_comes_from_the_file(bundle, brought, tmp_path):
    path = tmp_path / "_my model (final).joblib"
    path.write_bytes((brought / "forest.joblib").read_bytes())
    assert made(bundle(path, "--sample", brought / "features.csv", "--output", "json"))["name"] == "my-model-final-"


def test_the_next_commands_are_right(bundle, brought, tmp_path):
    result = bundle(brought / "forest.joblib", "--sample", brought / "features.csv")
    serve, ask = (shlex.split(line) for line in result.stdout.splitlines()[-2:])
    assert serve == ["muelle", "serve", "--models", str(tmp_path / "models")]
    assert ask[:3] == ["curl", "-s", "localhost:8080/models/forest/predict"]
    rows = [json.loads(ask[-1])["features"]]
    assert Predictor.load(tmp_path / "models" / "forest" / "1").predict(rows).tolist() == [0]


def test_a_row_of_mixed_columns_is_shown_with_names(bundle, brought):
    facts = made(bundle(brought / "churn.joblib", "--sample", brought / "churn.parquet", "--output", "json"))
    row = json.loads(shlex.split(facts["next"]["ask"])[-1])["features"]
    assert list(row) == ["age", "pay", "city", "zip", "member"]
    assert len(Predictor.load(facts["path"]).predict([row])) == 1


MODULE = """
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

class Twice(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X):
        return 2.0 * np.asarray(X)[:, 0]
"""


def test_own_classes_need_their_module_named(bundle, brought, tmp_path, monkeypatch):
    (tmp_path / "our_models.py").write_text(MODULE)
    code = "import our_models, pickle, numpy as np, sys; X = np.ones((3, 4)); "
    code += "pickle.dump(our_models.Twice().fit(X, X[:, 0]), open('twice.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    refused(bundle("twice.pkl", "--sample", brought / "features.csv"), "our_models.Twice", "--allow-module")
    arguments = ("--sample", brought / "features.csv", "--allow-module", "our_models", "--output", "json")
    facts = made(bundle("twice.pkl", *arguments))
    assert facts["next"]["serve"].endswith("--allow-module our_models")
    assert facts["engines"] == ["joblib"]


def test_an_evil_pickle_is_refused_and_not_run(bundle, brought):
    refused(bundle(brought / "evil.pkl", "--sample", brought / "features.csv"), "evil.pkl", "posix.system")
    assert not (brought / "marker").exists()


@pytest.mark.parametrize(
    ("fitted", "texts"),
    [
        ("unfitted.joblib", ["LogisticRegression", "not fitted"]),
        ("dict.pkl", ["expected a fitted estimator with predict, got dict"]),
        ("words.joblib", ["words.joblib", "not a complete pickle"]),
        ("iris.csv", ["iris.csv: expected a fitted estimator that ends in .joblib, .pkl, .pickle, .skops"]),
    ],
)
def test_what_is_no_fitted_estimator(bundle, brought, tmp_path, fitted, texts):
    refused(bundle(brought / fitted, "--sample", brought / "features.csv"), *texts)
    assert not (tmp_path / "models").exists()


def test_truncated_files(bundle, brought, tmp_path):
    whole = (brought / "forest.joblib").read_bytes()
    (tmp_path / "half.joblib").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "half.skops").write_bytes(b"PK\x03\x04")
    refused(bundle(tmp_path / "half.joblib", "--sample", brought / "features.csv"), "half.joblib")
    refused(bundle(tmp_path / "half.skops", "--sample", brought / "features.csv"), "half.skops")


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["forest.joblib", "--sample", "iris.csv"], ["fitted on 4 features", "5 columns", "--target COLUMN"]),
        (["forest.joblib", "--sample", "iris.csv", "--target", "species"], ["no column 'species'", "petal width"]),
        (["named.pkl", "--sample", "churn.csv"], ["no column sepal length (cm), sepal width (cm)", "got age, pay"]),
        (["forest.joblib", "--sample", "features.csv", "--dtype", "a=int64"], ["the sample has no column a"]),
        (["forest.joblib", "--sample", "evil.pkl"], ["evil.pkl: expected a file that ends in .csv"]),
        (["churn.joblib", "--sample", "churn.csv", "--dtype", "city=int64"], ["column 'city' can't be read as int64"]),
        (["forest.joblib", "--sample", "features.csv", "--name", "a/b"], ["name: expected 1 to 63 letters"]),
    ],
)
def test_what_does_not_fit(bundle, brought, monkeypatch, arguments, texts):
    monkeypatch.chdir(brought)
    refused(bundle(*arguments), *texts)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing.joblib", "--sample", "features.csv"], "'nothing.joblib' does not exist"),
        (["forest.joblib", "--sample", "nothing.csv"], "'nothing.csv' does not exist"),
        (["forest.joblib"], "Missing option '--sample'"),
        (["forest.joblib", "--sample", "features.csv", "--dtype", "a=complex"], "expected one of float64"),
        (["forest.joblib", "--sample", "features.csv", "--dtype", "a"], "expected NAME=VALUE, got 'a'"),
        (["forest.joblib", "--sample", "features.csv", "--score", "a=b"], "a: could not convert"),
        (["forest.joblib", "--sample", "features.csv", "--score", "a=nan"], "expected a finite number"),
        (["forest.joblib", "--sample", "features.csv", "--allow-module", "os;x"], "expected a module's name"),
    ],
)
def test_wrong_usage(bundle, brought, monkeypatch, arguments, text):
    monkeypatch.chdir(brought)
    result = bundle(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("text", ["", "a,b\n1\n1,2,3\n", "\xff\xfe"])
def test_tables_that_are_none(bundle, brought, tmp_path, text):
    (tmp_path / "bad.csv").write_bytes(text.encode("latin-1"))
    refused(bundle(brought / "forest.joblib", "--sample", tmp_path / "bad.csv"), "bad.csv")
    (tmp_path / "bad.parquet").write_bytes(text.encode("latin-1"))
    refused(bundle(brought / "forest.joblib", "--sample", tmp_path / "bad.parquet"), "bad.parquet: can't be read")


def test_a_table_without_rows(bundle, brought, tmp_path):
    header = (brought / "features.csv").read_text().splitlines()[0]
    (tmp_path / "empty.csv").write_text(f"{header}\n")
    refused(bundle(brought / "forest.joblib", "--sample", tmp_path / "empty.csv"))


def test_an_existing_version(bundle, brought):
    arguments = (brought / "forest.joblib", "--sample", brought / "features.csv", "--no-onnx", "--version", "1")
    assert bundle(*arguments).exit_code == 0
    refused(bundle(*arguments), "a version is never overwritten")


def test_another_scikit_learn_is_refused_unless_allowed(bundle, brought, tmp_path, monkeypatch):
    estimator = joblib.load(brought / "forest.joblib")
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "1.3.2")
        (tmp_path / "old.pkl").write_bytes(pickle.dumps(estimator))
    arguments = (tmp_path / "old.pkl", "--sample", brought / "features.csv", "--no-onnx")
    refused(bundle(*arguments), "made with scikit-learn 1.3.2", "install scikit-learn==1.3.2", "--allow-skew")
    result = bundle(*arguments, "--allow-skew")
    assert result.exit_code == 0
    assert "made with scikit-learn 1.3.2" in result.stderr
