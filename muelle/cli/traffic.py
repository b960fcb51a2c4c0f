"""``muelle traffic``: a share of the requests, testers' requests, or copies for the candidate."""

from __future__ import annotations

import click

from muelle.cli.operations import Place, operating, place_options, timeout_option
from muelle.errors import RefusedError
from muelle.rollout.operate import Limits
from muelle.rollout.plan import Wish
from muelle.rollout.release import TESTERS_VALUE, Release


@click.command()
@click.argument("weight", metavar="[PERCENT]", type=click.IntRange(0, 100), required=False)
@click.option(
    "--header",
    metavar="NAME=candidate",
    help="Send requests with this header to the candidate; NAME as in the chart's traffic.header.",
)
@click.option("--no-header", is_flag=True, help="No longer send requests with the testers' header to the candidate.")
@click.option(
    "--mirror",
    metavar="PERCENT",
    type=click.IntRange(0, 100),
    help="Send copies of so many requests to the candidate; nobody waits for its answers. 0 ends it.",
)
@timeout_option
@place_options
@click.pass_context
def traffic(
    ctx: click.Context,
    *,
    weight: int | None,
    header: str | None,
    no_header: bool,
    mirror: int | None,
    timeout_seconds: float,
    place: Place,
) -> None:
    """Give the candidate PERCENT of the requests, once it has the pods for them; 0 takes all of them back.

    What isn't named stays as it is. The gateway backend gives any share; replicas gives what the number of pods can;
    service gives 0 or 100. Testers' headers and copies need the gateway backend.

    \b
    Example:
      muelle traffic 10
      muelle traffic --header X-Muelle-Slot=candidate
      muelle traffic 0 --mirror 20
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    if header is not None and no_header:
        raise click.UsageError("--header and --no-header exclude each other", ctx)
    if weight is None and mirror is None and header is None and not no_header:
        raise click.UsageError("expected PERCENT, --header, --no-header or --mirror", ctx)
    with operating(ctx, place, Limits(timeout_seconds=timeout_seconds)) as operation:
        if header is not None and operation.release.backend == "gateway":
            _check_header(header, operation.release)
        to_testers = False if no_header else True if header is not None else None
        operation.set_traffic(Wish(weight=weight, mirror=mirror, header=to_testers))


def _check_header(header: str, release: Release) -> None:
    name, _, value = header.partition("=")
    if name.strip().lower() != release.header.lower() or value.strip() != TESTERS_VALUE:
        raise RefusedError(
            f"--header: {release} knows {release.header}={TESTERS_VALUE}, not {header!r}; "
            "another name is traffic.header in the chart's values"
        )
