"""Intervals against published examples, and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from muelle.quality.intervals import (
    RESAMPLES,
    StreamedBootstrap,
    percentile_interval,
    resampled_tables,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_newcombes_method_3(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)
    # It is symmetric.
    assert wilson(trials - successes, trials) == pytest.approx((1 - found.high, 1 - found.low))


def test_wilson_stays_within_0_and_1_and_needs_a_trial() -> None:
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0
    assert all(math.isnan(end) for end in wilson(0, 0))


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(4).binomial(200, 0.93, 2000)
    covered = [wilson(int(successes), 200) for successes in draws]
    share = np.mean([found.low <= 0.93 <= found.high for found in covered])
    assert 0.93 < share < 0.97


def test_the_bootstrap_of_a_mean_is_as_wide_as_the_theory_says() -> None:
    values = np.random.default_rng(1).normal(10, 3, 5000)
    sums = StreamedBootstrap(2, seed=5)
    for part in np.array_split(values, 7):
        sums.add(np.column_stack([np.ones(len(part)), part]))
    assert sums.sums == pytest.approx([5000, values.sum()])
    found = percentile_interval(sums.resampled[:, 1] / sums.resampled[:, 0])
    half = 1.96 * values.std() / 5000**0.5
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_each_row_is_in_a_resample_poisson_times() -> None:
    sums = StreamedBootstrap(4000, seed=1)
    sums.add(np.eye(4000))
    shares = [np.mean(sums.resampled == times) for times in range(6)]
    assert shares == pytest.approx([math.exp(-1) / math.factorial(times) for times in range(6)], abs=1e-3)
    assert sums.resampled.mean() == pytest.approx(1, abs=1e-3)
    assert sums.resampled.var() == pytest.approx(1, abs=5e-3)


def test_the_same_rows_in_other_parts_have_the_same_resamples() -> None:
    values = np.random.default_rng(1).normal(size=(5000, 1))
    whole, parts = StreamedBootstrap(1, seed=5), StreamedBootstrap(1, seed=5)
    whole.add(values)
    for part in np.array_split(values, 13):
        parts.add(part)
    assert np.allclose(whole.resampled, parts.resampled)


def test_resampled_tables_have_all_rows_and_spread_like_draws() -> None:
    counts = np.array([900, 90, 10, 0])
    tables = np.concatenate(list(resampled_tables(counts, seed=3)))
    assert tables.shape == (RESAMPLES, 4)
    assert set(tables.sum(axis=1)) == {1000}
    assert tables[:, 3].max() == 0
    assert tables.std(axis=0)[:3] == pytest.approx([(1000 * p * (1 - p)) ** 0.5 for p in (0.9, 0.09, 0.01)], rel=0.1)
    again = np.concatenate(list(resampled_tables(counts, seed=3)))
    assert np.array_equal(tables, again)


def test_what_most_resamples_do_not_define_has_no_interval() -> None:
    values = np.full(RESAMPLES, np.nan)
    values[: RESAMPLES // 3] = 1.0
    assert all(math.isnan(end) for end in percentile_interval(values))
