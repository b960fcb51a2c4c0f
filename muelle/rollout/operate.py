"""What the operators' commands do: read the record, plan, and go through the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from muelle.errors import ConflictError, RecordError, RefusedError
from muelle.rollout import plan
from muelle.rollout.cluster import Clock, Cluster, Object, version_of
from muelle.rollout.initial import initial_record
from muelle.rollout.objects import replicas_of
from muelle.rollout.plan import Stage, Wish
from muelle.rollout.reconcile import Live, Outcome, Reconciler, read_live
from muelle.rollout.record import RECORD_KEY, Record, SlotRecord, parse_timestamp, timestamp
from muelle.rollout.release import Release, find_release
from muelle.rollout.traffic import seen
from muelle.rollout.wait import Say, Waiter

_DRAIN_TELL_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Limits:
    """How long an operation waits.

    Attributes
    ----------
    timeout_seconds : float
        For pods or the gateway, each time.
    drain_seconds : float
        That a slot which lost its traffic keeps its pods: for connections that are kept alive, and for load balancers
        that learn of the change late.
    """

    timeout_seconds: float = 300.0
    drain_seconds: float = 30.0


class Operation:
    """One command on one release.

    Parameters
    ----------
    cluster : Cluster
    name : str, optional
        The release's; by default the only one in the namespace.
    clock : Clock
    say : callable
        Takes a line of progress.
    limits : Limits

    Raises
    ------
    RolloutError
        When there is no such release, or its record can't be read.
    """

    def __init__(self, cluster: Cluster, name: str | None, clock: Clock, say: Say, limits: Limits) -> None:
        self._cluster = cluster
        self._clock = clock
        self._say = say
        self._limits = limits
        self.release: Final[Release] = find_release(cluster, name)
        self._stored, self.record = load_record(cluster, self.release)
        self._moved_at: datetime | None = None
        waiter = Waiter(cluster, self.release, clock, limits.timeout_seconds, say)
        self._reconciler = Reconciler(cluster, self.release, waiter, clock, say, self._check_still_ours)

    def deploy(self, content: SlotRecord, replicas: int | None = None) -> None:
        """Put models into the idle slot and wait until all of its pods are ready."""
        self._repair()
        content = replace(content, since=timestamp(self._clock.now()))
        self._run(plan.deploy(self.record, self.release, content, replicas=replicas))

    def set_traffic(self, wish: Wish) -> None:
        """Give the candidate a share of the requests, the testers' requests, or copies."""
        self._repair()
        self._run(plan.set_traffic(self.record, self.release, wish))

    def promote(self, *, keep: bool) -> None:
        """Make the candidate the stable slot."""
        repaired = self._repair()
        self._warn_of_few_pods()
        self._run(self._planned(lambda: plan.promote(self.record, self.release, keep=keep), repaired))

    def rollback(self) -> None:
        """Take back the candidate, or the last promotion."""
        # Not repaired first: a candidate that is in trouble must not be waited for.
        try:
            stages: Sequence[Stage] = plan.rollback(self.record, self.release)
        except RefusedError:
            stages = self._planned(lambda: plan.rollback(self.record, self.release), self._repair())
        if stages and stages[0].drain:
            self._repair()
        self._run(stages)

    def _warn_of_few_pods(self) -> None:
        """Say so when an autoscaler has fewer pods for the candidate than for the slot that it will replace."""
        candidate = self.record.candidate
        if candidate is None or not self.release.autoscaling:
            return
        deployments = read_live(self._cluster, self.release).deployments
        few, many = replicas_of(deployments[candidate]), replicas_of(deployments[self.record.stable])
        if few < many:
            self._say(
                f"slot {candidate} has {few} pods, slot {self.record.stable} {many}: the autoscaler follows the load, "
                "which `muelle traffic` can move in steps"
            )

    def _planned(self, make: Callable[[], Sequence[Stage]], repaired: bool) -> Sequence[Stage]:
        """Return the stages; none when there is nothing to do because the repair has just done it."""
        try:
            return make()
        except RefusedError:
            if not repaired:
                raise
            return ()

    def _repair(self) -> bool:
        """Finish what a killed command left; return whether there was anything."""
        if self._stored is None:
            return False
        outcome = self._bring(Stage(self.record, ""))
        if outcome.changed:
            self._say("finished what an earlier command had begun")
        return outcome.changed

    def _run(self, stages: Sequence[Stage]) -> None:
        for stage in stages:
            if stage.drain:
                self._drain(stage)
            if self._save(stage.record):
                self._say(stage.doing)
            self._bring(stage)

    def _bring(self, stage: Stage) -> Outcome:
        if stage.pods_only:
            return self._reconciler.bring_pods(stage.record, ready=stage.ready, relaxed=stage.relaxed)
        outcome = self._reconciler.bring(stage.record, ready=stage.ready, relaxed=stage.relaxed, settled=stage.settled)
        if outcome.moved:
            self._moved_at = self._clock.now()
        return outcome

    def _drain(self, stage: Stage) -> None:
        """Leave the slot that is to be emptied its pods for a while after the traffic moved, by whatever command."""
        times = [time for time in (parse_timestamp(self.record.since), self._moved_at) if time is not None]
        if not times:
            return
        left = max(times) + timedelta(seconds=self._limits.drain_seconds) - self._clock.now()
        # Not longer than asked for, even if another machine's clock is ahead of ours.
        seconds = min(left.total_seconds(), self._limits.drain_seconds)
        if seconds <= 0:
            return
        if seconds > _DRAIN_TELL_SECONDS:
            self._say(f"waiting {seconds:.0f} s for connections to end, before {stage.doing}")
        self._clock.sleep(seconds)

    def _save(self, record: Record) -> bool:
        """Write the record if it says anything new, and return whether it does; `ConflictError` when it isn't ours."""
        moved = _traffic(record) != _traffic(self.record)
        record = replace(record, since=timestamp(self._clock.now()) if moved else self.record.since)
        new = record != self.record
        if self._stored is not None and not new:
            return False
        data = {RECORD_KEY: record.to_json()}
        try:
            if self._stored is None:
                self._stored = self._cluster.create("ConfigMap", _document(self.release, data))
            else:
                self._stored = self._cluster.replace("ConfigMap", {**self._stored, "data": data})
        except ConflictError as error:
            # An answer that got lost makes our own second attempt conflict with the first.
            found = self._cluster.read("ConfigMap", self.release.record_name)
            if found is None or found.get("data") != data:
                raise ConflictError(self._conflict()) from error
            self._stored = found
        self.record = record
        return new

    def _check_still_ours(self) -> None:
        found = self._cluster.read("ConfigMap", self.release.record_name)
        mine = "" if self._stored is None else version_of(self._stored)
        if ("" if found is None else version_of(found)) != mine:
            raise ConflictError(self._conflict())

    def _conflict(self) -> str:
        return (
            f"somebody else is changing {self.release} at the same time: its record {self.release.record_name} is "
            "another than this command read. It stops here; look at `muelle status` before you go on"
        )


def load_record(cluster: Cluster, release: Release) -> tuple[Object | None, Record]:
    """Return the ConfigMap and the record in it; without one, None and what the objects say.

    Raises
    ------
    RecordError
        When it can't be read.
    """
    stored = cluster.read("ConfigMap", release.record_name)
    if stored is not None:
        owners = {owner.get("uid") for owner in stored["metadata"].get("ownerReferences") or []}
        if owners and release.uid not in owners:
            raise RefusedError(
                f"the record {release.record_name} is of an earlier {release}, which is still being removed: "
                "try again in a minute"
            )
        where = f"ConfigMap {release.record_name}: {RECORD_KEY}"
        text = (stored.get("data") or {}).get(RECORD_KEY)
        if not isinstance(text, str):
            raise RecordError(f"{where}: expected a text, but there is none")
        return stored, Record.from_json(text, where)
    live = read_live(cluster, release)
    return None, record_of(release, live)


def record_of(release: Release, live: Live) -> Record:
    """Return the record that the objects amount to."""
    return initial_record(release, seen(release, live.service, live.route), live.deployments, live.service)


def _traffic(record: Record) -> tuple[object, ...]:
    return record.stable, record.weight, record.mirror, record.header


def _document(release: Release, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": release.record_name,
            "namespace": release.namespace,
            "labels": {**release.labels, "app.kubernetes.io/managed-by": "muelle"},
            # The record goes when `helm uninstall` removes the Service.
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": release.fullname, "uid": release.uid}],
        },
        "data": data,
    }
