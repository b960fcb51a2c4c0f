"""Shares of requests by numbers of pods: what the ratio of two counts can really give."""

from __future__ import annotations

from typing import Final

from muelle.errors import RefusedError

#: A share counts as given when the true one is this near, in per cent: 1 of 3 pods is 33 %.
_TOLERANCE: Final = 0.5


def pods_for(weight: int, total: int) -> int:
    """Return how many of `total` pods must be the candidate's, so that it gets `weight` per cent.

    Parameters
    ----------
    weight : int
        Per cent, 0 to 100.
    total : int
        Pods of both slots together, at least 1.

    Raises
    ------
    RefusedError
        When no number of pods gives that share; names the nearest ones that can be given.
    """
    pods = round(weight * total / 100)
    if abs(100 * pods / total - weight) <= _TOLERANCE and (0 < pods < total) == (0 < weight < 100):
        return pods
    raise RefusedError(
        f"{_count(total)} can't give {weight} % of the requests to a candidate: {_possible(weight, total)}. "
        f"{_fewest(weight)} pods can (replicas in the chart's values), and the gateway backend can with any number"
    )


def _possible(weight: int, total: int) -> str:
    shares = sorted({round(100 * pods / total) for pods in range(1, total)})
    if not shares:
        return "it can be all or nothing"
    below = [share for share in shares if share < weight]
    above = [share for share in shares if share > weight]
    near = [str(share) for share in (*below[-1:], *above[:1])]
    return f"the nearest they can give is {' or '.join(near)} %"


def _fewest(weight: int) -> int:
    """Return the smallest number of pods that can give the share; 100 always can."""
    return next(
        total
        for total in range(2, 101)
        for pods in (round(weight * total / 100),)
        if 0 < pods < total and abs(100 * pods / total - weight) <= _TOLERANCE
    )


def _count(total: int) -> str:
    return "1 pod" if total == 1 else f"{total} pods"


def pods_to_carry(weight: int, total: int) -> int:
    """Return how many pods of the size of the others carry `weight` per cent of what `total` pods carry; at least 1."""
    return max(1, -(-min(weight, 100) * total // 100))
