"""The population stability index, and when it says more than noise.

PSI is the symmetrised Kullback-Leibler divergence of two binned distributions, Σ (o − r) ln(o / r) over their K bins.
Without any drift it is not 0: with N observed and M reference rows, PSI / (1/N + 1/M) follows a χ² distribution with
K − 1 degrees of freedom (Yurdakul 2018, "Statistical properties of the population stability index"). PSI > 0.1, as
often used, fires on a third of undrifted windows of 100 rows. So a feature has drifted only when PSI is above what
noise reaches with probability α, and its excess over the expected noise is large enough to matter, and there are rows
enough. The alert in Prometheus asks the same. (Design: monitoring.md, "Drift".)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from muelle.bundle.binning import Binning, Counts, chi2_quantile, shares

#: Probability that an undrifted feature is above the critical value.
ALPHA: Final = 0.001
#: Least excess of PSI over its expected noise that matters in practice.
EXCESS: Final = 0.2
#: Fewer rows than this say nothing.
MINIMUM: Final = 200

State = Literal["drifted", "stable", "too few rows"]


@dataclass(frozen=True)
class Comparison:
    """One column of a window of rows against its reference.

    Attributes
    ----------
    psi : float
        Population stability index, 0 or more.
    noise : float
        What PSI is on average without drift: (K − 1)(1/N + 1/M).
    critical : float
        What PSI exceeds with probability `ALPHA` without drift: χ²(1 − α, K − 1)(1/N + 1/M).
    observations, reference_observations : int
        N and M.
    labels : tuple of str
        The bins.
    observed, reference : ndarray of shape (len(labels),) float64
        Their smoothed shares.
    """

    psi: float
    noise: float
    critical: float
    observations: int
    reference_observations: int
    labels: tuple[str, ...]
    observed: NDArray[np.float64]
    reference: NDArray[np.float64]

    @property
    def excess(self) -> float:
        """PSI beyond its expected noise, 0 or more."""
        return max(self.psi - self.noise, 0.0)

    @property
    def state(self) -> State:
        """Whether the column has drifted; all three conditions of the alert."""
        if self.observations <= MINIMUM:
            return "too few rows"
        return "drifted" if self.excess > EXCESS and self.psi > self.critical else "stable"

    @property
    def largest_change(self) -> str:
        """The label of the bin whose share has changed most."""
        return self.labels[int(np.argmax(np.abs(self.observed - self.reference)))]


def compare(binning: Binning, counts: Counts) -> Comparison:
    """Compare a window's counts with the reference's.

    Parameters
    ----------
    binning : Binning
        The column's bins and reference.
    counts : ndarray of shape (len(binning.labels),) int64
        The window's rows in each bin.

    Returns
    -------
    Comparison
    """
    observed, reference = shares(counts), binning.reference
    rows = int(counts.sum())
    scale = 1 / max(rows, 1) + 1 / max(binning.observations, 1)
    degrees = len(binning.labels) - 1
    return Comparison(
        psi=float(((observed - reference) * np.log(observed / reference)).sum()),
        noise=degrees * scale,
        critical=chi2_quantile(1 - ALPHA, degrees) * scale,
        observations=rows,
        reference_observations=binning.observations,
        labels=binning.labels,
        observed=observed,
        reference=reference,
    )
