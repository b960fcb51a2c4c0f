"""``muelle promote``: the candidate becomes the stable slot."""

from __future__ import annotations

import click

from muelle.cli.operations import Place, drain_option, operating, place_options, timeout_option
from muelle.rollout.operate import Limits


@click.command()
@click.option("--keep", is_flag=True, help="Keep the old slot's pods, so that a rollback takes no time.")
@drain_option
@timeout_option
@place_options
@click.pass_context
def promote(ctx: click.Context, *, keep: bool, drain_seconds: float, timeout_seconds: float, place: Place) -> None:
    """Make the candidate the stable slot: it gets a full slot's pods, then all requests.

    Only a pointer moves: the candidate's pods go on as they are. The old slot then loses its pods, but keeps its models
    for `muelle rollback`. Without a candidate, a slot that an earlier --keep kept is emptied.

    \b
    Example:
      muelle promote --keep
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    with operating(ctx, place, Limits(timeout_seconds, drain_seconds)) as operation:
        operation.promote(keep=keep)
