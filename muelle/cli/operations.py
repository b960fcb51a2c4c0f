"""What the commands that act on a cluster share: options, the way to the cluster, and how a release is shown."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

import click

from muelle.cli.output import note, output_option, print_json, print_table
from muelle.rollout.cluster import Clock, Cluster
from muelle.rollout.operate import Limits, Operation
from muelle.rollout.status import SlotStatus, Status, read_status

F = TypeVar("F", bound=Callable[..., Any])

_INTERRUPTED: Final = 130
_FAREWELL: Final = (
    "stopped. No slot was sent requests that it can't answer; repeat the command to finish what it began, "
    "or look at `muelle status`"
)
#: Of a digest in a table; `--output json` has all of it.
_DIGEST_CHARACTERS: Final = len("sha256:") + 12


@dataclass(frozen=True)
class Place:
    """Which release is meant, and how to answer."""

    release: str | None
    namespace: str | None
    context: str | None
    output: str


@dataclass(frozen=True)
class Surroundings:
    """What tests put in the place of a cluster and of time, as click's context object."""

    cluster: Cluster
    clock: Clock


class SystemClock:
    """The machine's time."""

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def place_options(command: F) -> F:
    """Add ``--release``, ``--namespace``, ``--context`` and ``--output``, and hand them over as ``place``."""

    @functools.wraps(command)
    def with_place(*args: Any, **options: Any) -> Any:
        place = Place(**{field.name: options.pop(field.name) for field in fields(Place)})
        return command(*args, place=place, **options)

    options: tuple[Callable[[Any], Any], ...] = (
        click.option("--release", "-r", help="Helm's name of the release.  [default: the only one in the namespace]"),
        click.option("--namespace", "-n", help="The release's namespace.  [default: the context's]"),
        click.option("--context", help="Context of the kube config.  [default: the current one]"),
        output_option,
    )
    decorated: Any = with_place
    for option in reversed(options):
        decorated = option(decorated)
    return cast("F", decorated)


def timeout_option(command: F) -> F:
    """Add ``--timeout``."""
    return click.option(
        "--timeout",
        "timeout_seconds",
        type=click.FloatRange(min=1),
        default=300.0,
        show_default=True,
        help="Seconds to wait for pods or the gateway, each time.",
    )(command)


def drain_option(command: F) -> F:
    """Add ``--drain-seconds``."""
    return click.option(
        "--drain-seconds",
        type=click.FloatRange(min=0),
        default=30.0,
        show_default=True,
        help="Seconds that a slot keeps its pods after its traffic has gone: for connections that callers keep open.",
    )(command)


def reach(ctx: click.Context, place: Place) -> tuple[Cluster, Clock]:
    """Return the cluster and the clock."""
    if isinstance(ctx.obj, Surroundings):
        return ctx.obj.cluster, ctx.obj.clock
    from muelle.rollout.kube import KubeCluster

    return KubeCluster.connect(place.context, place.namespace), SystemClock()


@contextlib.contextmanager
def operating(ctx: click.Context, place: Place, limits: Limits) -> Iterator[Operation]:
    """Give the operation, and show the release after it."""
    cluster, clock = reach(ctx, place)
    with stopping_at_once(ctx):
        operation = Operation(cluster, place.release, clock, note, limits)
        yield operation
        show(read_status(cluster, operation.release), place.output)


@contextlib.contextmanager
def stopping_at_once(ctx: click.Context, farewell: str = _FAREWELL) -> Iterator[None]:
    """End at Ctrl-C, saying what that leaves."""
    try:
        yield
    except KeyboardInterrupt:
        if farewell:
            note(farewell)
        ctx.exit(_INTERRUPTED)


def show(status: Status, output: str) -> None:
    """Print a release."""
    if output == "json":
        print_json(status.to_json())
        return
    print_table(headline(status), ("slot", "role", "models", "digest", "ready", "traffic", "since"), rows(status))
    for slot in status.slots:
        if slot.problem:
            note(f"slot {slot.slot} is not ready: {slot.problem}")
    if status.unfinished:
        note("a command has not finished, or objects were changed by hand: repeat it, or the next one puts them right")


def headline(status: Status) -> str:
    """Return a line about a release."""
    parts = [f"{status.release} in namespace {status.namespace}, backend {status.backend}"]
    if status.header:
        parts.append(f"testers' header {status.header}: candidate")
    if status.mirror:
        parts.append(f"copies of {status.mirror} % to the candidate")
    if status.since:
        parts.append(f"traffic as it is since {status.since}")
    return "; ".join(parts)


def rows(status: Status) -> list[tuple[object, ...]]:
    """Return the table's rows, one a slot."""
    return [_row(slot) for slot in status.slots]


def _row(slot: SlotStatus) -> tuple[object, ...]:
    models = ", ".join(map(str, slot.models)) or ("all there are" if slot.wanted else "-")
    digests = ", ".join((model.digest or "-")[:_DIGEST_CHARACTERS] for model in slot.models) or "-"
    pods = f"{slot.ready}/{slot.wanted}"
    return slot.slot, slot.role, models, digests, pods, f"{slot.weight} %", slot.since or "-"
