"""``muelle rollback``: back to what was."""

from __future__ import annotations

import click

from muelle.cli.operations import Place, drain_option, operating, place_options, timeout_option
from muelle.rollout.operate import Limits


@click.command()
@drain_option
@timeout_option
@place_options
@click.pass_context
def rollback(ctx: click.Context, *, drain_seconds: float, timeout_seconds: float, place: Place) -> None:
    """Take all requests from the candidate; without a candidate, go back to the slot before the last promotion.

    A candidate is left at once, whatever state it is in. After a promotion the old slot first gets its pods back, and
    becomes the stable one when they are ready. What was rolled back is no place to roll back to: repeating does no
    harm.

    \b
    Example:
      muelle rollback
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    with operating(ctx, place, Limits(timeout_seconds, drain_seconds)) as operation:
        operation.rollback()
