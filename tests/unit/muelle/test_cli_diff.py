"""``muelle diff`` and the comparisons behind it."""

import json
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest

from muelle.bundle.profile import build_profile
from muelle.bundle.signature import Feature, Output, Signature
from muelle.cli.compare import changed, difference, profile_shifts, psi, signature_changes

AGE = Feature("age", "float64")
CITY = Feature("city", "string", categories=("Vigo", "Lugo"))
LABEL = Output("predict", "int64", (-1,), (0, 1))
PROBABILITY = Output("predict_proba", "float64", (-1, 2), (0, 1))
BASE = Signature("frame", (AGE, CITY), (LABEL, PROBABILITY))


@pytest.fixture(scope="module")
def pair(muelle, brought, tmp_path_factory):
    """Two bundles of the same four columns, and one of others."""
    folder = tmp_path_factory.mktemp("pair")
    rows = pd.read_csv(brought / "features.csv")
    (rows + 2.0).to_csv(folder / "shifted.csv", index=False)
    common = ("--repository", folder / "models", "--no-onnx", "--name", "iris")
    for sample, score in ((brought / "features.csv", "0.9"), (folder / "shifted.csv", "0.8")):
        arguments = (brought / "forest.joblib", "--sample", sample, "--score", f"accuracy={score}")
        assert muelle("bundle", *arguments, *common).exit_code == 0
    renamed = rows.rename(columns={rows.columns[0]: "length"})
    renamed.to_csv(folder / "renamed.csv", index=False)
    other = joblib.load(brought / "forest.joblib").fit(
        rows.to_numpy(), np.array(["a", "b", "c"])[[0] * 50 + [1] * 50 + [2] * 50]
    )
    joblib.dump(other, folder / "other.joblib")
    result = muelle("bundle", folder / "other.joblib", "--sample", folder / "renamed.csv", *common)
    assert result.exit_code == 0, result.output
    return folder / "models"


def test_what_changed_is_told(muelle, pair):
    result = muelle("diff", "iris@1", "iris@2", "--repository", pair, "--output", "json", "--fail-on", "signature")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["compatible"] is True
    assert found["signature"] == []
    assert found["scores"] == [{"name": "accuracy", "a": 0.9, "b": 0.8, "change": pytest.approx(-0.1)}]
    shifts = {shift["column"]: shift for shift in found["profile"]}
    sepal = shifts["sepal length (cm)"]
    assert sepal["mean_b"] - sepal["mean_a"] == pytest.approx(2.0)
    assert sepal["psi"] > 1
    assert found["libraries"] == []


def test_a_signature_that_breaks_callers_fails_the_gate(muelle, pair):
    arguments = ("diff", pair / "iris" / "1", pair / "iris" / "3")
    assert muelle(*arguments).exit_code == 0
    result = muelle(*arguments, "--fail-on", "signature")
    assert result.exit_code == 1
    for text in ("MAY FAIL", "input sepal length (cm) is gone", "input length is new", "output predict was int64"):
        assert text in result.stdout


def test_a_bundle_is_like_itself(muelle, repository):
    found = json.loads(muelle("diff", repository / "iris", repository / "iris/1", "--output", "json").stdout)
    assert found["compatible"]
    assert found["facts"] == found["parameters"] == []
    assert all(shift["psi"] == 0 for shift in found["profile"])
    assert all(score["change"] == 0 for score in found["scores"])
    assert "callers see no difference" in muelle("diff", repository / "iris", repository / "iris").stdout


def test_a_damaged_bundle_is_refused(muelle, repository, tmp_path):
    result = muelle("diff", repository / "iris", tmp_path)
    assert result.exit_code == 1
    assert "manifest.json" in result.stderr


@pytest.mark.parametrize(
    ("other", "breaking"),
    [
        (replace(BASE, inputs=(CITY, AGE)), [True]),
        (replace(BASE, inputs=(AGE,)), [True]),
        (replace(BASE, inputs=(AGE, CITY, Feature("zip", "string"))), [True]),
        (replace(BASE, inputs=(replace(AGE, dtype="int64"), CITY)), [True]),
        (replace(BASE, inputs=(replace(AGE, nullable=True), CITY)), [False]),
        (replace(BASE, inputs=(AGE, replace(CITY, categories=None))), [False]),
        (replace(BASE, inputs=(AGE, replace(CITY, categories=("Vigo", "Lugo", "Ourense")))), [False]),
        (replace(BASE, inputs=(AGE, replace(CITY, categories=("Vigo", "Ourense")))), [True, False]),
        (replace(BASE, outputs=(LABEL,)), [True]),
        (replace(BASE, outputs=(replace(LABEL, classes=(0, 1, 2)), PROBABILITY)), [True]),
        (replace(BASE, outputs=(replace(LABEL, shape=(-1, 2)), PROBABILITY)), [True]),
        (replace(BASE, layout="objects"), [True]),
        (BASE, []),
    ],
)
def test_signature_changes(other, breaking):
    assert [change.breaking for change in signature_changes(BASE, other)] == breaking


def test_what_was_allowed_and_is_refused_breaks_callers():
    before = replace(BASE, inputs=(replace(AGE, nullable=True), replace(CITY, categories=None)))
    assert [change.breaking for change in signature_changes(before, BASE)] == [True, True]
    assert [change.breaking for change in signature_changes(replace(BASE, outputs=(LABEL,)), BASE)] == [False]


def test_psi_is_the_formula():
    expected, actual = np.array([50.0, 30, 20]), np.array([20.0, 30, 50])
    p, q = (expected + 0.5) / 101.5, (actual + 0.5) / 101.5
    assert psi(expected, actual) == pytest.approx(sum((q - p) * np.log(q / p)))
    assert psi(expected, expected) == 0
    assert psi(expected, 10 * expected) == pytest.approx(0, abs=1e-3)
    assert np.isfinite(psi(np.array([100.0, 0]), np.array([0.0, 100])))


def _profile(values, kind="float64"):
    signature = Signature("frame", (Feature("v", kind),), (Output("predict", "float64", (-1,)),))
    return build_profile(signature, {"v": np.asarray(values)}, np.zeros(len(values)))


def _shift(a, b, kind="float64"):
    return next(shift for shift in profile_shifts(_profile(a, kind), _profile(b, kind)) if shift.column == "v")


def test_two_samples_of_one_distribution_have_a_psi_of_about_the_noise():
    rng = np.random.default_rng(0)
    shifts = [_shift(rng.normal(size=2000), rng.normal(size=2000)) for _ in range(20)]
    assert all(shift.noise == pytest.approx(9 * (1 / 2000 + 1 / 2000)) for shift in shifts)
    assert np.mean([shift.psi for shift in shifts]) < 3 * shifts[0].noise


def test_a_shift_is_seen_about_as_large_as_it_is():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=5000), rng.normal(0.5, 1.0, size=5000)
    edges = np.quantile(a, np.arange(0.1, 0.95, 0.1))
    p, q = (np.bincount(np.searchsorted(edges, values), minlength=10) / 5000 for values in (a, b))
    exact = float(np.sum((q - p) * np.log(q / p)))
    # b's outer bins are wide, and its values taken to lie evenly in them.
    assert _shift(a, b).psi == pytest.approx(exact, rel=0.25)


def test_discrete_columns_are_exact():
    a, b = [0.0] * 70 + [1.0] * 30, [0.0] * 20 + [1.0] * 80
    assert _shift(a, b).psi == pytest.approx(psi(np.array([70.0, 30]), np.array([20.0, 80])))
    assert _shift(a, a).psi == 0


def test_missing_values_are_a_bin_of_their_own():
    values = [1.0, 2.0, 3.0, 4.0] * 25
    assert _shift(values, values[:50] + [np.nan] * 50).psi > 0.5


def test_words_are_compared_by_value():
    a, b = ["x"] * 60 + ["y"] * 40, ["y"] * 60 + ["z"] * 40
    objects = [np.array(values, dtype=object) for values in (a, b)]
    assert _shift(*objects, "string").psi == pytest.approx(psi(np.array([60.0, 40, 0]), np.array([0.0, 60, 40])))


def test_columns_without_values():
    assert _shift([np.nan] * 5, [np.nan] * 5).psi == 0
    assert np.isfinite(_shift([1.0, 2.0, 3.0], [np.nan] * 5).psi)


def test_differences():
    assert changed({"a": 1, "b": 2}, {"b": 3, "c": 4}) == [("a", 1, None), ("b", 2, 3), ("c", None, 4)]
    assert difference(1.0, 1.5) == 0.5
    assert difference(None, 1.5) is None
