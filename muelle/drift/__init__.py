"""Drift of features, predictions and confidence against a bundle's reference profile: pure statistics, no I/O."""

from muelle.drift.statistics import ALPHA, EXCESS, MINIMUM, Comparison, compare

__all__ = ["ALPHA", "EXCESS", "MINIMUM", "Comparison", "compare"]
