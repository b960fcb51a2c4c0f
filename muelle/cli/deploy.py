"""``muelle deploy``: models into the idle slot of a release, without traffic."""

from __future__ import annotations

import re
from typing import Final

import click

from muelle.bundle.manifest import NAME
from muelle.cli.operations import Place, operating, place_options, timeout_option
from muelle.errors import StuckError
from muelle.rollout.operate import Limits
from muelle.rollout.record import SlotRecord
from muelle.store.source import Source

_MODEL: Final = re.compile(rf"({NAME.pattern})@({NAME.pattern})")
_IMAGE: Final = re.compile(r"[\w./:@-]+", re.ASCII)


def _check_models(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for model in value:
        if _MODEL.fullmatch(model) is None:
            raise click.BadParameter(f"expected NAME@VERSION such as iris@2, got {model!r}")
    return value


def _check_image(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and _IMAGE.fullmatch(value) is None:
        raise click.BadParameter(f"expected an image's reference such as registry/muelle:2, got {value!r}")
    return value


def _parse_sources(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> str:
    sources = [Source.parse(text) for text in value]
    for source in sources:
        if source.digest is None:
            raise click.BadParameter(
                f"{source}: expected URL@sha256:HEX, so that every pod has the very same bundle; "
                "`muelle push` and `muelle inspect` print the digest"
            )
    return "\n".join(f"{source.url} {source.digest}" for source in sources)


@click.command()
@click.argument("models", metavar="NAME@VERSION...", nargs=-1, required=True, callback=_check_models)
@click.option(
    "--from",
    "fetch",
    metavar="URL@sha256:HEX",
    multiple=True,
    callback=_parse_sources,
    help="Where the pods fetch a bundle; repeat for more.  [default: as in the stable slot]",
)
@click.option("--image", default="", callback=_check_image, help="Image to run.  [default: as in the stable slot]")
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    help="Pods of the candidate.  [default: 1; with the service backend a full slot]",
)
@timeout_option
@place_options
@click.pass_context
def deploy(
    ctx: click.Context,
    *,
    models: tuple[str, ...],
    fetch: str,
    image: str,
    replicas: int | None,
    timeout_seconds: float,
    place: Place,
) -> None:
    """Put models into the idle slot and wait until all of its pods are ready.

    They become the candidate, which gets no request yet: `muelle traffic` gives it some, `muelle promote` all. A
    candidate that has no traffic is replaced. When its pods do not get ready, the reason is told, and nothing else has
    changed.

    \b
    Example:
      muelle deploy iris@2 --from s3://models/iris/2@sha256:0123…
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    with operating(ctx, place, Limits(timeout_seconds=timeout_seconds)) as operation:
        content = SlotRecord(serve=",".join(models), fetch=fetch, image=image)
        try:
            operation.deploy(content, replicas)
        except StuckError as error:
            record, hint = operation.record, ""
            if operation.release.models_from == "fetch" and not fetch:
                hint = "; without --from it fetches what the stable slot does"
            if not record.gets_requests(record.idle):
                hint += f". Slot {record.idle} gets no request, and slot {record.stable} is as it was"
            raise StuckError(f"{error}{hint}") from error
