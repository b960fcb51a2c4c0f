"""Counting into a profile's bins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from muelle.bundle.binning import Binning, chi2_quantile, shares
from muelle.bundle.profile import build_profile
from muelle.bundle.signature import Feature, Output, Signature


def _profile_of(values: np.ndarray, dtype: str = "float64"):
    layout = "matrix" if dtype == "float64" else "frame"
    signature = Signature(
        layout=layout,
        inputs=(Feature(name="a", dtype=dtype, nullable=True),),
        outputs=(Output("predict", "float64", (-1,)),),
    )
    data = values.reshape(-1, 1) if layout == "matrix" else {"a": values}
    return build_profile(signature, data, np.zeros(len(values))).inputs["a"]


def test_the_reference_counted_again_gives_the_profiles_own_counts():
    values = np.random.default_rng(0).normal(size=1000)
    values[:7] = np.nan
    column = _profile_of(values)
    binning = Binning.of(column)
    assert binning.count(values).tolist() == [*column.counts, column.missing]
    assert binning.labels == (*(f"{i:02}" for i in range(10)), "missing")
    assert binning.observations == 1000


def test_a_value_on_an_edge_falls_below_it_and_infinities_into_the_outer_bins():
    binning = Binning.of(_profile_of(np.arange(100.0)))
    edge = _profile_of(np.arange(100.0)).edges[0]
    assert binning.count(np.array([edge, np.nextafter(edge, np.inf), -np.inf, np.inf])).tolist() == [
        2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0,
    ]  # fmt: skip


def test_words_unseen_in_the_reference_are_other_and_none_is_missing():
    column = np.array(["x"] * 5 + ["y"] * 3, object)
    binning = Binning.of(_profile_of(column, "string"))
    assert binning.labels == ("00", "01", "other", "missing")
    assert binning.count(np.array(["y", "z", None, "x", "x"], object)).tolist() == [2, 1, 1, 1]


def test_booleans_are_counted_as_themselves_and_not_as_numbers():
    binning = Binning.of(_profile_of(np.array([True, True, False]), "bool"))
    assert binning.count(np.array([False, True, False])).tolist() == [1, 2, 0, 0]


def test_shares_add_up_to_one_and_none_of_them_is_zero():
    binning = Binning.of(_profile_of(np.arange(50.0)))
    assert binning.reference.sum() == pytest.approx(1)
    assert (binning.reference > 0).all()
    assert shares(np.zeros(4, np.int64)).tolist() == [0.25] * 4


@pytest.mark.parametrize("probability", [0.001, 0.5, 0.95, 0.999, 0.999999])
@pytest.mark.parametrize("degrees", [1, 2, 10, 17, 200])
def test_the_quantile_is_scipys(probability: float, degrees: int):
    assert chi2_quantile(probability, degrees) == pytest.approx(chi2.ppf(probability, degrees), rel=1e-9)


@pytest.mark.parametrize(("probability", "degrees"), [(0, 1), (1, 1), (0.5, 0)])
def test_a_quantile_out_of_range_is_refused(probability: float, degrees: int):
    with pytest.raises(ValueError, match="expected 0 < probability < 1"):
        chi2_quantile(probability, degrees)
