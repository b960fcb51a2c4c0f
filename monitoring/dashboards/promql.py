"""Pieces of PromQL that panels share.

The variables are multi-valued, "All" being ``.*``, which also takes series that lack the label: a Prometheus that was
set up by hand may add no namespace and no release.
"""

from __future__ import annotations

from typing import Final

#: What says where a series comes from.
PODS: Final = 'namespace=~"$namespace", release=~"$release"'
#: Series of a model's version, as a server exports them.
MODELS: Final = f'{PODS}, model=~"$model", version=~"$version"'
#: The same of a recording rule: rules add up over a namespace's releases.
RECORDED: Final = 'namespace=~"$namespace", model=~"$model", version=~"$version"'
#: Recording rules of objectives have no version.
OBJECTIVES: Final = 'namespace=~"$namespace", model=~"$model"'
#: What a table or a comparison is by.
VERSION: Final = ("model", "version")
SLOT: Final = ("namespace", "release", "release_slot")


def series(metric: str, *more: str, of: str = MODELS) -> str:
    """Return a selector: a metric, the variables' matchers, and more of them."""
    return f"{metric}{{{', '.join((of, *more))}}}"


def rate(metric: str, *more: str, of: str = MODELS) -> str:
    """Return a counter's increase per second."""
    return f"rate({series(metric, *more, of=of)}[$__rate_interval])"


def increase(metric: str, *more: str, of: str = MODELS) -> str:
    """Return a counter's increase over all that the dashboard shows; for instant queries."""
    return f"increase({series(metric, *more, of=of)}[$__range])"


def total(expression: str, *by: str) -> str:
    """Return the sum, by labels if there are any."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def share(part: str, whole: str, *by: str) -> str:
    """Return part ÷ whole, both summed; nothing, rather than 0 ÷ 0, where the whole is 0."""
    return f"{total(part, *by)} / ({total(whole, *by)} > 0)"


def quantile(q: float, buckets: str, *by: str) -> str:
    """Return the q-quantile of a histogram whose buckets' rate or increase is given; nothing without observations."""
    # An empty histogram's quantile is NaN, which is not >= 0.
    return f"histogram_quantile({q}, {total(buckets, 'le', *by)}) >= 0"


def mean(metric: str, *by: str) -> str:
    """Return a histogram's mean."""
    return share(rate(f"{metric}_sum"), rate(f"{metric}_count"), *by)


def stable_top(count: int, expression: str, *by: str) -> str:
    """Return the series that were largest at some time of what is shown, so that the choice is the same at each point.

    The expression has to be a selector, of series with these labels.
    """
    return (
        f"{expression} and on ({', '.join(by)}) topk({count}, max by ({', '.join(by)}) "
        f"(max_over_time({expression}[$__range] @ end())))"
    )
