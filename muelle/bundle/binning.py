"""Counting values into a reference profile's bins: one way for the service's counters and for drift offline.

Every column has its profile's bins and, last, ``missing``. A reference ratio is smoothed by half an observation a bin
(the Jeffreys prior), so that a bin that the reference never saw has a logarithm too. (Design: monitoring.md, "Drift".)
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from muelle.bundle.data import Array, missing_mask
from muelle.bundle.profile import ColumnProfile
from muelle.bundle.signature import Scalar

MISSING: Final = "missing"
OTHER: Final = "other"
#: Added to each bin's count before it becomes a ratio, on both sides of a comparison.
SMOOTHING: Final = 0.5

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Binning:
    """One column's bins and how the reference filled them.

    Attributes
    ----------
    labels : tuple of str
        ``00``, ``01``, … in the profile's order, ``other`` for a categorical column's rest, and ``missing`` last.
    counts : ndarray of shape (len(labels),) int64
        The reference's rows in each bin.
    """

    labels: tuple[str, ...]
    counts: Counts
    _edges: NDArray[np.float64] | None
    _places: dict[Scalar, int]

    @classmethod
    def of(cls, column: ColumnProfile) -> Binning:
        """Return the bins of a profile's column."""
        counts = np.array([*column.counts, column.missing], np.int64)
        if column.kind == "numeric":
            labels = tuple(f"{i:02}" for i in range(len(column.counts)))
            return cls((*labels, MISSING), counts, np.array(column.edges, np.float64), {})
        labels = tuple(f"{i:02}" for i in range(len(column.values)))
        places = {_key(value): i for i, value in enumerate(column.values)}
        return cls((*labels, OTHER, MISSING), counts, None, places)

    @cached_property
    def reference(self) -> NDArray[np.float64]:
        """The reference's smoothed share of each bin, of shape (len(labels),); they add up to 1."""
        return shares(self.counts)

    @property
    def observations(self) -> int:
        """The reference's rows."""
        return int(self.counts.sum())

    def count(self, values: Array) -> Counts:
        """Return how many of the values fall into each bin.

        Parameters
        ----------
        values : array of shape (n_samples,)
            Numbers, booleans, or an object array of scalars; NaN or None is missing.

        Returns
        -------
        ndarray of shape (len(labels),) int64
        """
        missing = missing_mask(values)
        gone = int(missing.sum())
        present = values[~missing] if gone else values
        size = len(self.labels)
        if self._edges is not None:
            # Inclusive above, as the profile's bins are.
            counted = np.bincount(np.searchsorted(self._edges, present.astype(np.float64), side="left"), minlength=size)
        else:
            counted = np.zeros(size, np.int64)
            rest = size - 2
            for value, number in Counter(present.tolist()).items():
                counted[self._places.get(_key(value), rest)] += number
        counted[-1] = gone
        return counted


def shares(counts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smoothed share of each bin: (count + 1/2) / (all + bins/2); of the shape of `counts`."""
    smoothed = counts + SMOOTHING
    return np.asarray(smoothed / smoothed.sum(), np.float64)


def _key(value: Scalar) -> Scalar:
    # A profile read from JSON has 1 where the column has 1.0, and Python's hash takes True for 1.
    return f"{value}" if isinstance(value, bool) else value


def chi2_quantile(probability: float, degrees: int) -> float:
    """Return the χ² distribution's quantile, for serving without scipy.

    Parameters
    ----------
    probability : float
        Between 0 and 1, both excluded.
    degrees : int
        Degrees of freedom, 1 or more.

    Raises
    ------
    ValueError
        When an argument is out of its range.

    Notes
    -----
    Bisection on the regularised lower incomplete gamma function's series, NIST DLMF 8.11.4.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"expected 0 < probability < 1 and degrees ≥ 1, got {probability} and {degrees}")
    low, high = 0.0, float(degrees)
    while _chi2_cdf(high, degrees) < probability:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if _chi2_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _chi2_cdf(value: float, degrees: int) -> float:
    shape, x = degrees / 2, value / 2
    if x == 0:
        return 0.0
    term = total = 1 / shape
    divisor = shape
    while term > total * 1e-17:
        divisor += 1
        term *= x / divisor
        total += term
    return total * math.exp(shape * math.log(x) - x - math.lgamma(shape))
