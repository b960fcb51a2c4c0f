"""When a window has drifted, and when that is only noise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from muelle.bundle.binning import Binning
from muelle.bundle.profile import build_profile
from muelle.bundle.signature import Feature, Output, Signature
from muelle.drift import compare
from muelle.drift.window import compare_columns
from muelle.errors import InputError

_ROWS = load_breast_cancer().data
_NAMES = [name.replace(" ", "_") for name in load_breast_cancer().feature_names]


@pytest.fixture(scope="module")
def profile():
    signature = Signature(
        "matrix",
        tuple(Feature(name, "float64", nullable=True) for name in _NAMES),
        (Output("predict", "int64", (-1,)),),
    )
    return build_profile(signature, _ROWS, np.zeros(len(_ROWS), int)).inputs


def _columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: rows[:, i] for i, name in enumerate(_NAMES)}


def _drifted(profile, rows: np.ndarray) -> list[str]:
    return [name for name, item in compare_columns(profile, _columns(rows)).items() if item.state == "drifted"]


def test_psi_is_the_sum_over_the_bins(profile):
    binning = Binning.of(profile["mean_radius"])
    counts = np.array([100, 80, 60, 40, 20, 20, 40, 60, 80, 100, 10])
    observed = (counts + 0.5) / (counts + 0.5).sum()
    reference = (binning.counts + 0.5) / (binning.counts + 0.5).sum()
    item = compare(binning, counts)
    assert item.psi == pytest.approx(((observed - reference) * (np.log(observed) - np.log(reference))).sum())
    assert item.noise == pytest.approx(10 * (1 / 610 + 1 / 569))
    assert (item.observations, item.reference_observations) == (610, 569)


@pytest.mark.parametrize("size", [200, 201, 500, 1000, 5000])
def test_undrifted_windows_are_silent_in_at_least_99_of_100(profile, size: int):
    random = np.random.default_rng(size)
    alarms = sum(bool(_drifted(profile, _ROWS[random.integers(0, len(_ROWS), size)])) for _ in range(100))
    assert alarms <= 1


@pytest.mark.parametrize("feature", ["mean_radius", "mean_compactness", "area_error", "worst_concavity"])
def test_a_feature_shifted_by_half_a_standard_deviation_is_found_and_no_other(profile, feature: str):
    random = np.random.default_rng(7)
    place = _NAMES.index(feature)
    for _ in range(20):
        window = _ROWS[random.integers(0, len(_ROWS), 400)]
        window[:, place] += 0.5 * _ROWS[:, place].std()
        assert _drifted(profile, window) == [feature]


def test_a_dead_feature_and_one_that_goes_missing_are_found_by_name(profile):
    window = _ROWS[np.random.default_rng(1).integers(0, len(_ROWS), 400)]
    window[:, 3] = window[0, 3]
    window[:200, 8] = np.nan
    assert sorted(_drifted(profile, window)) == sorted([_NAMES[3], _NAMES[8]])
    assert compare_columns(profile, _columns(window))[_NAMES[8]].largest_change == "missing"


def test_a_category_that_the_reference_never_had_is_found():
    signature = Signature("frame", (Feature("city", "string"),), (Output("predict", "float64", (-1,)),))
    reference = np.array(["Cádiz", "Vigo"] * 300, object)
    profile = build_profile(signature, {"city": reference}, np.zeros(600)).inputs
    window = np.array(["Cádiz", "Vigo", "Bilbao"] * 100, object)
    item = compare_columns(profile, {"city": window})["city"]
    assert (item.state, item.largest_change) == ("drifted", "other")


def test_too_few_rows_say_nothing_however_far_off(profile):
    window = np.full((200, len(_NAMES)), 1e6)
    assert {item.state for item in compare_columns(profile, _columns(window)).values()} == {"too few rows"}


def test_a_missing_column_and_one_of_words_are_refused_by_name(profile):
    columns = _columns(_ROWS)
    with pytest.raises(InputError, match="columns: missing mean_radius"):
        compare_columns(profile, {name: values for name, values in columns.items() if name != "mean_radius"})
    columns["mean_area"] = np.array(["large"] * len(_ROWS), object)
    with pytest.raises(InputError, match="mean_area: expected numbers"):
        compare_columns(profile, columns)
