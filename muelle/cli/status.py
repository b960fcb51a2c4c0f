"""``muelle status``: what a release serves, and to whom."""

from __future__ import annotations

import json

import click

from muelle.cli.operations import Place, place_options, reach, show, stopping_at_once
from muelle.rollout.release import find_release
from muelle.rollout.status import Status, read_status


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Show it again whenever it has changed, until Ctrl-C.")
@click.option(
    "--every",
    "interval_seconds",
    type=click.FloatRange(min=0.5),
    default=2.0,
    show_default=True,
    help="Seconds between two looks with --watch.",
)
@place_options
@click.pass_context
def status(ctx: click.Context, *, watch: bool, interval_seconds: float, place: Place) -> None:
    """Show slots, models, digests, ready pods and shares of a release.

    Models and digests are what the pods themselves say. With --watch and JSON, each change is one line.

    \b
    Example:
      muelle status --watch
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    cluster, clock = reach(ctx, place)
    with stopping_at_once(ctx, farewell=""):
        release = find_release(cluster, place.release)
        found = read_status(cluster, release)
        if not watch:
            show(found, place.output)
            return
        shown: Status | None = None
        while True:
            if found != shown:
                _show_again(found, place.output)
                shown = found
            clock.sleep(interval_seconds)
            found = read_status(cluster, find_release(cluster, place.release))


def _show_again(found: Status, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(found.to_json()))
        return
    # Does nothing where standard output is no terminal.
    click.clear()
    show(found, output)
