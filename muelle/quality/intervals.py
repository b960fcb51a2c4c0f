"""95 % intervals: Wilson's for a share, and the percentile bootstrap for all else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from muelle.bundle.data import Array

#: The 0.975 quantile of the normal distribution.
Z: Final = 1.959963984540054
#: Resamples of a bootstrap; the ends of a 95 % interval are then the 25th from either side.
RESAMPLES: Final = 1000
_PERCENTILES: Final = (2.5, 97.5)
#: Rows that are resampled at once: some 16 MB.
_AT_ONCE: Final = 2048
_TABLES_AT_ONCE: Final = 50
#: Poisson numbers are looked up by 16 random bits, which takes a tenth of the time that drawing them does.
_STEPS: Final = 2**16


class Interval(NamedTuple):
    """Both ends; NaN where there is too little for one."""

    low: float
    high: float


NOWHERE: Final = Interval(math.nan, math.nan)


def wilson(successes: int, trials: int) -> Interval:
    """Return the score interval of a share.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927); it is method 3 of
    Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), who finds it
    close to its nominal coverage for small numbers and shares near 0 and 1 too.

    Parameters
    ----------
    successes, trials : int
        Counts, ``0 <= successes <= trials``.
    """
    if trials == 0:
        return NOWHERE
    share, square = successes / trials, Z * Z
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = Z / (1 + square / trials) * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    # The ends are 0 and 1 exactly there; rounding may miss them.
    return Interval(0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half)


def percentile_interval(resampled: Array) -> Interval:
    """Return the percentile interval (Efron and Tibshirani, "An introduction to the bootstrap", chapter 13).

    Parameters
    ----------
    resampled : array of shape (n_resamples,)
        A score in each resample; NaN where a resample doesn't define it, such as one without any row.
    """
    defined = resampled[np.isfinite(resampled)]
    if defined.size < RESAMPLES // 2:
        return NOWHERE
    low, high = np.percentile(defined, _PERCENTILES)
    return Interval(float(low), float(high))


class StreamedBootstrap:
    """Sums over rows, and over `RESAMPLES` resamples of them, without keeping a row.

    Each row is in each resample Poisson(1) times, independently: for many rows the same as drawing them with
    replacement (Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies", Computer
    Methods and Programs in Biomedicine 83 (2006); Chamandy et al., "Estimating uncertainty for massive data streams",
    2012).

    Parameters
    ----------
    columns : int
        How many values a row has.
    seed : int
        The same rows in the same order give the same sums.

    Attributes
    ----------
    sums : array of shape (columns,)
        Of all rows.
    resampled : array of shape (RESAMPLES, columns)
        Of each resample.
    """

    def __init__(self, columns: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.sums = np.zeros(columns)
        self.resampled = np.zeros((RESAMPLES, columns))

    def add(self, values: Array) -> None:
        """Add rows: array of shape (n_rows, columns)."""
        self.sums += values.sum(axis=0)
        for start in range(0, len(values), _AT_ONCE):
            part = values[start : start + _AT_ONCE]
            drawn = self._random.integers(0, _STEPS, (len(part), RESAMPLES), dtype=np.uint16)
            weights = _poisson_quantiles()[drawn]
            self.resampled += weights.T @ part


@cache
def _poisson_quantiles() -> NDArray[np.float64]:
    """Return the quantiles of Poisson(1) in `_STEPS` equal steps; their mean and variance are 1 up to 0.0001."""
    shares = [math.exp(-1) / math.factorial(number) for number in range(12)]
    edges = np.round(np.cumsum(shares) * _STEPS)
    return np.searchsorted(edges, np.arange(_STEPS), side="right").astype(np.float64)


def resampled_tables(counts: Array, seed: int) -> Iterator[Array]:
    """Yield resamples of a table of counts, some at a time: that of rows drawn with replacement is multinomial.

    Parameters
    ----------
    counts : array of shape (cells,) int
        How many rows are in each cell.
    seed : int
        The same counts give the same resamples.

    Yields
    ------
    array of shape (n, cells) int
        `RESAMPLES` altogether.
    """
    random = np.random.default_rng(seed)
    total = int(counts.sum())
    for _ in range(0, RESAMPLES, _TABLES_AT_ONCE):
        yield random.multinomial(total, counts / total, size=_TABLES_AT_ONCE)
