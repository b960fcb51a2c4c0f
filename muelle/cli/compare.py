"""How two bundles differ; pure, of what their manifests and profiles say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muelle.bundle.profile import ColumnProfile, Profile
from muelle.bundle.signature import Feature, Output, Signature


@dataclass(frozen=True)
class Change:
    """One difference of two signatures; `breaking` when a caller of the first may fail with the second."""

    change: str
    breaking: bool


@dataclass(frozen=True)
class Shift:
    """How a column's distribution differs.

    Attributes
    ----------
    column : str
        The feature's or output's name.
    psi : float
        Population stability index, see `psi`.
    noise : float
        What the index is expected to be for two samples of the same distribution: ``(K - 1)(1/N + 1/M)`` for K bins.
    mean_a, mean_b : float, optional
        For numeric columns.
    """

    column: str
    psi: float
    noise: float
    mean_a: float | None
    mean_b: float | None


def signature_changes(a: Signature, b: Signature) -> list[Change]:
    """Return how `b` differs from `a` for callers; empty when it doesn't."""
    changes = []
    if a.layout != b.layout:
        # A matrix may be sent as one tensor or column by column, the others only column by column.
        changes.append(Change(f"the layout was {a.layout}, is {b.layout}", breaking=b.layout != "matrix"))
    old, new = ({feature.name: feature for feature in s.inputs} for s in (a, b))
    changes += [Change(f"input {name} is gone", breaking=True) for name in old if name not in new]
    changes += [Change(f"input {name} is new", breaking=True) for name in new if name not in old]
    common = [name for name in old if name in new]
    if common != [name for name in new if name in old]:
        changes.append(Change("the inputs' order differs", breaking=True))
    for name in common:
        changes += _input_changes(old[name], new[name])
    answers, new_answers = ({output.name: output for output in s.outputs} for s in (a, b))
    changes += [Change(f"output {name} is gone", breaking=True) for name in answers if name not in new_answers]
    changes += [Change(f"output {name} is new", breaking=False) for name in new_answers if name not in answers]
    for name in answers:
        if name in new_answers:
            changes += _output_changes(answers[name], new_answers[name])
    return changes


def _input_changes(a: Feature, b: Feature) -> list[Change]:
    changes = []
    if a.dtype != b.dtype:
        changes.append(Change(f"input {a.name} was {a.dtype}, is {b.dtype}", breaking=True))
    if a.nullable != b.nullable:
        word = "allowed" if b.nullable else "refused"
        changes.append(Change(f"input {a.name}: missing values are now {word}", breaking=a.nullable))
    if a.categories != b.categories:
        if b.categories is None:
            changes.append(Change(f"input {a.name}: any category is allowed now", breaking=False))
        elif a.categories is None:
            changes.append(Change(f"input {a.name}: only {_listed(b.categories)} is allowed now", breaking=True))
        else:
            gone = [value for value in a.categories if value not in b.categories]
            new = [value for value in b.categories if value not in a.categories]
            if gone:
                changes.append(Change(f"input {a.name}: no longer allows {_listed(gone)}", breaking=True))
            if new:
                changes.append(Change(f"input {a.name}: allows {_listed(new)} too", breaking=False))
    return changes


def _output_changes(a: Output, b: Output) -> list[Change]:
    changes = []
    if a.dtype != b.dtype:
        changes.append(Change(f"output {a.name} was {a.dtype}, is {b.dtype}", breaking=True))
    if a.classes != b.classes:
        changes.append(
            Change(f"output {a.name}: classes were {_listed(a.classes)}, are {_listed(b.classes)}", breaking=True)
        )
    if a.shape != b.shape:
        changes.append(Change(f"output {a.name}: shape was {list(a.shape)}, is {list(b.shape)}", breaking=True))
    return changes


def _listed(values: Any) -> str:
    if values is None:
        return "none"
    return ", ".join(str(value) for value in values[:10]) + (", …" if len(values) > 10 else "")


def profile_shifts(a: Profile, b: Profile) -> list[Shift]:
    """Return how the reference rows and the predictions for them differ, the largest index first."""
    shifts = []
    for old, new in ((a.inputs, b.inputs), (a.predictions, b.predictions)):
        for name in old:
            if name in new and old[name].kind == new[name].kind:
                shifts.append(_shift(name, old[name], new[name]))
    return sorted(shifts, key=lambda shift: -shift.psi)


def _shift(name: str, a: ColumnProfile, b: ColumnProfile) -> Shift:
    expected, actual = _aligned(a, b)
    bins = int(np.count_nonzero(expected + actual))
    rows_a, rows_b = float(expected.sum()), float(actual.sum())
    noise = (bins - 1) * (1 / rows_a + 1 / rows_b) if rows_a and rows_b else 0.0
    return Shift(column=name, psi=psi(expected, actual), noise=max(0.0, noise), mean_a=a.mean, mean_b=b.mean)


def psi(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """Return the population stability index ``Σ (q − p) ln(q / p)`` of two samples' counts in the same bins.

    Parameters
    ----------
    expected, actual : array of shape (n_bins,) float64
        Counts. Half a row is added to each bin, so that an empty one doesn't make the index infinite; bins that are
        empty in both don't count.

    Returns
    -------
    float
        0 when the shares are the same.
    """
    used = (expected + actual) > 0
    if used.sum() < 2:
        return 0.0
    p, q = (counts[used] + 0.5 for counts in (expected, actual))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def _aligned(a: ColumnProfile, b: ColumnProfile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both columns' counts in a's bins, missing values last."""
    expected = np.array([*a.counts, a.missing], dtype=np.float64)
    counts = _categorical_counts(a, b) if a.kind == "categorical" else _numeric_counts(a, b)
    return expected, np.array([*counts, b.missing], dtype=np.float64)


def _categorical_counts(a: ColumnProfile, b: ColumnProfile) -> list[float]:
    # True and 1 are equal in Python, but the dtype is the same here or the signatures differ anyway.
    found: Mapping[Any, int] = dict(zip(b.values, b.counts[:-1], strict=True))
    known = [float(found.get(value, 0)) for value in a.values]
    return [*known, float(sum(b.counts)) - sum(known)]


def _numeric_counts(a: ColumnProfile, b: ColumnProfile) -> list[float]:
    """Spread b's counts over a's bins, as if its values lay evenly between its own bin edges.

    In the wide outer bins they don't: two normal distributions half a standard deviation apart have an index that comes
    out a fifth too large.
    """
    total = float(sum(b.counts))
    if not total or b.minimum is None or b.maximum is None:
        return [0.0] * len(a.counts)
    # b's distribution function, known exactly at its edges. A dict, as the minimum may be an edge as well.
    known = {b.minimum: 0.0}
    known |= dict(zip(b.edges, np.cumsum(b.counts[:-1]).tolist(), strict=True))
    known[b.maximum] = total
    below = np.interp(a.edges, list(known), list(known.values()), left=0.0, right=total)
    return [float(count) for count in np.diff([0.0, *below, total])]


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return ``(key, value in a, value in b)`` for each that differs; None where it is not."""
    keys = [*a, *(key for key in b if key not in a)]
    return [(key, a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)]


def difference(a: float | None, b: float | None) -> float | None:
    """Return ``b - a``; None when either is missing."""
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return None
    return b - a
