"""A cluster in memory for tests of the rollout: server-side apply, and controllers that take their time.

Time passes only in `FakeClock.sleep`; each second of it the controllers take one step. At every step and after every
write `FakeCluster.check` makes sure that no request could have gone to a slot without ready pods.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from muelle.errors import ConflictError
from muelle.rollout.cluster import Object

Path = tuple[str, ...]
KEYED = {"containers", "initContainers", "env"}
ATOMIC = {"selector", "rules"}
START = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)


class KilledError(BaseException):
    """The process was killed here."""


class FakeClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.on_second: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            before = int(self.seconds)
            self.seconds = min(end, before + 1.0)
            if int(self.seconds) > before:
                self.on_second()


class FakeCluster:
    """One release ``m`` in a namespace ``ns``, made as the chart makes it; its fields belong to ``helm``."""

    namespace = "ns"

    def __init__(
        self,
        backend: str = "gateway",
        *,
        replicas: int = 4,
        autoscaling: bool = False,
        models_from: str = "image",
    ) -> None:
        self.backend, self.full, self.autoscaling = backend, replicas, autoscaling
        self.clock = FakeClock()
        self.clock.on_second = self.tick
        self.objects: dict[tuple[str, str], Object] = {}
        self.owners: dict[tuple[str, str], dict[str, set[Path]]] = {}
        self.pods: list[Object] = []
        self.slices: list[Object] = []
        self.version = 0
        self.writes = 0
        #: Die after this many writes.
        self.lives: int | None = None
        #: Models that don't get ready, and what their pods' /readyz answers.
        self.broken: dict[str, str] = {}
        self.metrics: dict[str, str] = {}
        #: How many pods there is room for.
        self.room = 1_000
        self.seconds_to_ready = 2
        self.gateway_answers = True
        self.strict = True
        self.after_write: Callable[[], None] = lambda: None
        self._install(models_from)
        self.settle()

    # what the commands use

    def read(self, kind: str, name: str) -> Object | None:
        found = self.objects.get((kind, name))
        return None if found is None else self._shown(kind, name)

    def list(self, kind: str, labels: Mapping[str, str]) -> Sequence[Object]:
        if kind == "EndpointSlice":
            return copy.deepcopy(self.slices)
        things = self.pods if kind == "Pod" else [item for (of, _), item in self.objects.items() if of == kind]
        return [
            copy.deepcopy(item) for item in things if labels.items() <= (item["metadata"].get("labels") or {}).items()
        ]

    def apply(self, kind: str, name: str, fields: Object, resource_version: str) -> Object:
        self._expect(kind, name, resource_version)
        thing, owners = self.objects[kind, name], self.owners[kind, name]
        before = copy.deepcopy(thing["spec"])
        applied = set(leaves(fields))
        for path in owners.get("muelle", set()) - applied:
            if not any(path in theirs for manager, theirs in owners.items() if manager != "muelle"):
                remove(thing, path)
        merge(thing, fields)
        for manager, theirs in owners.items():
            if manager != "muelle":
                theirs -= {path for path in theirs & applied if value_at(before, path) != value_at(thing["spec"], path)}
        owners["muelle"] = applied
        return self._written(kind, name, generation=thing["spec"] != before)

    def disown(self, kind: str, name: str, managed_fields: Sequence[Object], resource_version: str) -> Object:
        self._expect(kind, name, resource_version)
        entries = [entry["fieldsV1"] for entry in managed_fields if entry.get("manager") == "muelle"]
        self.owners[kind, name]["muelle"] = {path for entry in entries for path in unfolded(entry)}
        return self._written(kind, name)

    def create(self, kind: str, document: Object) -> Object:
        key = kind, document["metadata"]["name"]
        if key in self.objects:
            raise ConflictError(f"create {key}: it is there")
        self.objects[key] = copy.deepcopy(document)
        return self._written(*key)

    def replace(self, kind: str, document: Object) -> Object:
        name = document["metadata"]["name"]
        self._expect(kind, name, document["metadata"]["resourceVersion"])
        self.objects[kind, name] = copy.deepcopy(document)
        return self._written(kind, name)

    def ask_pod(self, pod: str, port: int, path: str) -> str | None:
        found = next((item for item in self.pods if item["metadata"]["name"] == pod), None)
        if found is None or port != 8080:
            return None
        serve = env_of(found, "MUELLE_SERVE")
        if path == "/metrics":
            return self.metrics.get(serve)
        return self.broken.get(serve, '{"status": "not ready", "reasons": ["loading"]}')

    # what tests look at

    def deployment(self, slot: str) -> Object:
        return self.objects["Deployment", f"m-muelle-{slot}"]

    def replicas(self) -> dict[str, int]:
        return {slot: self.deployment(slot)["spec"]["replicas"] for slot in "ab"}

    def env(self, slot: str, name: str = "MUELLE_SERVE") -> str | None:
        return env_of(self.deployment(slot)["spec"]["template"], name)

    def record(self) -> Any:
        return json.loads(self.objects["ConfigMap", "m-muelle-rollout"]["data"]["record.json"])

    def selector(self) -> dict[str, str]:
        return dict(self.objects["Service", "m-muelle"]["spec"]["selector"])

    def rules(self) -> list[Any]:
        return list(self.objects["HTTPRoute", "m-muelle"]["spec"]["rules"])

    def owned(self, kind: str, name: str) -> set[str]:
        """The last step of every field that is ours."""
        return {"/".join(path[1:]) for path in self.owners[kind, name].get("muelle", set())}

    def slot_pods(self, slot: str, *, ready: bool | None = None) -> list[Object]:
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["labels"]["muelle.io/slot"] == slot and ready in (None, is_ready(pod))
        ]

    def uids(self, slot: str) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.slot_pods(slot)}

    def shares(self) -> dict[str, float]:
        """Who is sent requests at all, and how much of them, as the objects have it."""
        slot = self.selector().get("muelle.io/slot")
        found = {name: 1.0 if slot == name else 0.0 for name in "ab"}
        if slot is None:
            ready = {name: len(self.slot_pods(name, ready=True)) for name in "ab"}
            return {name: count / (sum(ready.values()) or 1) for name, count in ready.items()}
        if self.backend == "gateway":
            weights = {ref["name"][-1]: ref["weight"] for ref in self.rules()[1]["backendRefs"]}
            found = {name: max(found[name], weights[name] / sum(weights.values())) for name in "ab"}
            testers = self.rules()[0]["backendRefs"][0]["name"][-1]
            found[testers] = max(found[testers], 0.01)
        return found

    def state(self) -> Any:
        """Everything that must be the same in the end, whatever happened on the way."""
        record = self.record()
        record["since"] = ""
        for slot in record["slots"].values():
            slot["since"] = ""
        objects = {
            f"{kind} {name}": copy.deepcopy(thing["spec"])
            for (kind, name), thing in self.objects.items()
            if "spec" in thing
        }
        owned = {f"{kind} {name}": sorted(self.owned(kind, name)) for kind, name in self.owners}
        return {"record": record, "objects": objects, "owned": owned}

    # what goes on by itself

    def settle(self) -> None:
        for _ in range(12):
            self.tick()

    def tick(self) -> None:
        for slot in "ab":
            self._tick_deployment(slot)
        self._tick_slices()
        route = self.objects.get(("HTTPRoute", "m-muelle"))
        if route is not None and self.gateway_answers:
            seen = {"status": "True", "observedGeneration": route["metadata"]["generation"]}
            conditions = [{"type": kind, **seen} for kind in ("Accepted", "ResolvedRefs")]
            route["status"] = {"parents": [{"parentRef": {"name": "local"}, "conditions": conditions}]}
        self.check()

    def check(self) -> None:
        """Fail when requests could go where nobody answers, or where too few do."""
        for slot, share in self.shares().items():
            ready = len(self.slot_pods(slot, ready=True))
            assert share == 0 or ready > 0, f"slot {slot} is sent {share:.0%} and has no ready pod"
            if self.strict and self.backend != "replicas":
                assert ready >= share * self.full - 1e-9, f"slot {slot} is sent {share:.0%}, by {ready} pods"
        if self.strict and self.backend == "replicas":
            front = self.selector().get("muelle.io/slot")
            behind = sum(len(self.slot_pods(slot, ready=True)) for slot in "ab" if front in (None, slot))
            assert behind >= self.full, f"{behind} pods answer what {self.full} should"

    def _tick_deployment(self, slot: str) -> None:
        deployment = self.deployment(slot)
        want, template = deployment["spec"]["replicas"], deployment["spec"]["template"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
        mine = self.slot_pods(slot)
        new = [pod for pod in mine if pod["metadata"]["labels"]["pod-template-hash"] == digest]
        old = [pod for pod in mine if pod not in new]
        for pod in new:
            self._tick_pod(pod)
        ready = sum(is_ready(pod) for pod in new)
        # Unavailable pods none: an old one goes for a new one that is ready.
        surplus = old[: max(0, len(old) + ready - want)] if old else new[: len(new) - want] if len(new) > want else []
        self.pods = [pod for pod in self.pods if pod not in surplus]
        for _ in range(want - len(new)):
            if len(self.pods) < self.room:
                self.pods.append(self._pod(slot, digest, template))
        mine = self.slot_pods(slot)
        new = [pod for pod in mine if pod["metadata"]["labels"]["pod-template-hash"] == digest]
        deployment["status"] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(mine),
            "updatedReplicas": len(new),
            "readyReplicas": sum(map(is_ready, mine)),
            "availableReplicas": sum(map(is_ready, mine)),
        }

    def _tick_pod(self, pod: Object) -> None:
        pod["age"] += 1
        warm = is_ready(pod) or pod["age"] >= self.seconds_to_ready
        good = warm and env_of(pod, "MUELLE_SERVE") not in self.broken
        running = {"name": "predictor", "restartCount": 0, "state": {"running": {}}}
        pod["status"] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if good else "False"}],
            "containerStatuses": [running],
        }

    def _tick_slices(self) -> None:
        selector = self.selector()
        behind = [pod for pod in self.pods if selector.items() <= pod["metadata"]["labels"].items() and is_ready(pod)]
        endpoints = [{"targetRef": {"name": pod["metadata"]["name"]}, "conditions": {"ready": True}} for pod in behind]
        self.slices = [{"endpoints": endpoints}]

    def _pod(self, slot: str, digest: str, template: Object) -> Object:
        self.version += 1
        name = f"m-muelle-{slot}-{digest}-{self.version}"
        labels = {**template["metadata"]["labels"], "pod-template-hash": digest}
        created = f"{self.clock.now():%Y-%m-%dT%H:%M:%SZ}"
        meta = {"name": name, "uid": f"uid-{self.version}", "labels": labels, "creationTimestamp": created}
        return {"metadata": meta, "spec": copy.deepcopy(template["spec"]), "status": {}, "age": 0}

    def _expect(self, kind: str, name: str, version: str) -> None:
        if version != self.objects[kind, name]["metadata"]["resourceVersion"]:
            raise ConflictError(f"{kind} {name} has changed")

    def _written(self, kind: str, name: str, *, generation: bool = False) -> Object:
        self.version += 1
        self.writes += 1
        meta = self.objects[kind, name]["metadata"]
        meta["resourceVersion"] = str(self.version)
        meta["generation"] = meta.get("generation", 0) + generation
        shown = self._shown(kind, name)
        self.check()
        self.after_write()
        if self.lives is not None and self.writes >= self.lives:
            raise KilledError
        return shown

    def _shown(self, kind: str, name: str) -> Object:
        thing = copy.deepcopy(self.objects[kind, name])
        thing["metadata"]["managedFields"] = [
            {"manager": manager, "operation": "Apply", "fieldsV1": folded(paths)}
            for manager, paths in self.owners.get((kind, name), {}).items()
            if paths
        ]
        return thing

    def _install(self, models_from: str) -> None:
        labels = {"app.kubernetes.io/name": "muelle", "app.kubernetes.io/instance": "m"}
        facts = {
            "backend": self.backend,
            "replicas": str(self.full),
            "autoscaling": str(self.autoscaling).lower(),
            "header": "X-Muelle-Slot",
            "models-from": models_from,
            "stable": "a",
        }
        annotations = {f"muelle.io/{key}": value for key, value in facts.items()}
        self._add("Service", "m-muelle", {"selector": {**labels, "muelle.io/slot": "a"}}, labels, annotations)
        for slot in "ab":
            pod_labels = {**labels, "app.kubernetes.io/component": "predictor", "muelle.io/slot": slot}
            env = [{"name": "MUELLE_SERVE", "value": "iris@1"}, {"name": "MUELLE_PORT", "value": "8080"}]
            ports = [{"name": "http", "containerPort": 8080}]
            pod: Object = {"containers": [{"name": "predictor", "image": "muelle:1", "env": env, "ports": ports}]}
            if models_from == "fetch":
                fetch = [{"name": "MUELLE_FETCH", "value": "s3://models/iris/1 sha256:1"}]
                pod["initContainers"] = [{"name": "fetch", "image": "muelle:1", "env": fetch}]
            template = {"metadata": {"labels": pod_labels}, "spec": pod}
            replicas = self.full if slot == "a" else 0
            self._add("Deployment", f"m-muelle-{slot}", {"replicas": replicas, "template": template}, labels)
        if self.backend == "gateway":
            match = {"headers": [{"type": "Exact", "name": "X-Muelle-Slot", "value": "candidate"}]}
            rules = [
                {"matches": [match], "backendRefs": [backend("a", 1)], "timeouts": {"request": "35s"}},
                {"backendRefs": [backend("a", 100), backend("b", 0)], "timeouts": {"request": "35s"}},
            ]
            self._add("HTTPRoute", "m-muelle", {"parentRefs": [{"name": "local"}], "rules": rules}, labels)
        # What was installed has been there for a while.
        self.pods = [self._pod("a", "", self.deployment("a")["spec"]["template"]) for _ in range(self.full)]
        strict, self.strict = self.strict, False
        for pod in self.pods:
            template = self.deployment("a")["spec"]["template"]
            digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
            pod["metadata"]["labels"]["pod-template-hash"] = digest
            pod["age"] = self.seconds_to_ready
            self._tick_pod(pod)
        self.strict = strict

    def _add(
        self, kind: str, name: str, spec: Object, labels: dict[str, str], annotations: dict[str, str] | None = None
    ) -> None:
        self.version += 1
        meta = {
            "name": name,
            "uid": f"uid-{name}",
            "labels": labels,
            "annotations": annotations or {},
            "generation": 1,
            "resourceVersion": str(self.version),
            "creationTimestamp": "2026-11-21T09:00:00Z",
        }
        self.objects[kind, name] = {"kind": kind, "metadata": meta, "spec": spec}
        self.owners[kind, name] = {"helm": set(leaves({"spec": spec}))}


def backend(slot: str, weight: int) -> Object:
    return {"group": "", "kind": "Service", "name": f"m-muelle-{slot}", "port": 80, "weight": weight}


def is_ready(pod: Object) -> bool:
    return any(item["status"] == "True" for item in pod["status"].get("conditions", []))


def env_of(pod: Object, name: str) -> str | None:
    groups = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    return next((env["value"] for group in groups for env in group["env"] if env["name"] == name), None)


def leaves(fields: Any, path: Path = ()) -> list[Path]:
    """The fields of a document as managedFields names them."""
    found = []
    for key, value in fields.items():
        step = (*path, f"f:{key}")
        if key in KEYED:
            for item in value:
                found += leaves(item, (*step, f'k:{{"name":"{item["name"]}"}}'))
        elif isinstance(value, dict) and key not in ATOMIC:
            found += leaves(value, step)
        else:
            found.append(step)
    return found


def folded(paths: set[Path]) -> Object:
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
            if step.startswith("k:"):
                node["."] = {}
    return tree


def unfolded(tree: Object, path: Path = ()) -> list[Path]:
    below = {step: value for step, value in tree.items() if step != "."}
    if not below:
        return [path] if path and not path[-1].startswith("k:") else []
    return [found for step, value in below.items() for found in unfolded(value, (*path, step))]


def _child(node: Any, step: str) -> Any:
    if step.startswith("f:"):
        return node.get(step[2:]) if isinstance(node, dict) else None
    name = json.loads(step[2:])["name"]
    return next((item for item in node or [] if item["name"] == name), None)


def value_at(spec: Object, path: Path) -> Any:
    node: Any = {"spec": spec}
    for step in path:
        node = _child(node, step)
    return node


def remove(thing: Object, path: Path) -> None:
    node: Any = thing
    for step in path[:-1]:
        node = _child(node, step)
        if node is None:
            return
    node.pop(path[-1][2:], None)


def merge(into: Any, fields: Any) -> None:
    for key, value in fields.items():
        if key in KEYED:
            for item in value:
                found = _child(into.setdefault(key, []), f'k:{{"name":"{item["name"]}"}}')
                if found is None:
                    into[key].append(copy.deepcopy(item))
                else:
                    merge(found, item)
        elif isinstance(value, dict) and key not in ATOMIC:
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = copy.deepcopy(value)
