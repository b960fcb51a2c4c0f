"""Rendering the chart with the real helm, and looking at what comes out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "muelle"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))

Object = dict[str, Any]

GATEWAY: Object = {"traffic": {"backend": "gateway", "gateway": {"parentRefs": [{"name": "local"}]}}}
DIGEST = "sha256:" + "0123456789abcdef" * 4


def command(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever comes of it."""
    return subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=120, check=False)


def merged(*trees: Mapping[str, Any]) -> Object:
    """Merge values as helm does: maps into one another, anything else replaced."""
    whole: Object = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, Mapping) and isinstance(whole.get(key), Mapping)
            whole[key] = merged(whole[key], value) if both else value
    return whole


@dataclass(frozen=True)
class Rendered:
    """The objects of a release."""

    objects: list[Object]

    def kinds(self) -> set[str]:
        """The kinds that there are."""
        return {thing["kind"] for thing in self.objects}

    def of(self, kind: str) -> dict[str, Object]:
        """The objects of a kind, by name."""
        return {thing["metadata"]["name"]: thing for thing in self.objects if thing["kind"] == kind}

    def one(self, kind: str, name: str) -> Object:
        """One object."""
        return self.of(kind)[name]

    def deployment(self, slot: str = "a") -> Object:
        """A slot's Deployment, of release m."""
        return self.one("Deployment", f"m-muelle-{slot}")

    def pod(self, slot: str = "a") -> Object:
        """A slot's pod."""
        spec: Object = self.deployment(slot)["spec"]["template"]["spec"]
        return spec

    def predictor(self, slot: str = "a") -> Object:
        """A slot's server."""
        return container(self.pod(slot)["containers"], "predictor")

    def fetcher(self, slot: str = "a") -> Object:
        """A slot's init container."""
        return container(self.pod(slot)["initContainers"], "fetch")

    def environment(self, slot: str = "a") -> dict[str, Any]:
        """The server's environment: values, or where they come from."""
        return environment(self.predictor(slot))

    def replicas(self) -> dict[str, Any]:
        """Pods asked for by slot; None where it is left open."""
        return {slot: self.deployment(slot)["spec"].get("replicas") for slot in ("a", "b")}

    def front(self) -> Object:
        """The front Service."""
        return self.one("Service", "m-muelle")

    def front_slot(self) -> str | None:
        """The slot that the front Service selects; None for both."""
        slot: str | None = self.front()["spec"]["selector"].get("muelle.io/slot")
        return slot

    def rules(self) -> list[Object]:
        """The route's rules."""
        rules: list[Object] = self.one("HTTPRoute", "m-muelle")["spec"]["rules"]
        return rules

    def weights(self) -> dict[str, int]:
        """The route's weights for everybody, by slot."""
        return {ref["name"][-1]: ref["weight"] for ref in self.rules()[1]["backendRefs"]}

    def pods(self) -> dict[str, Object]:
        """The specs of all pods, by the name of what makes them."""
        found = {name: thing["spec"]["template"]["spec"] for name, thing in self.of("Deployment").items()}
        return found | {name: thing["spec"] for name, thing in self.of("Pod").items()}


#: What must be a text wherever it stands; of the second ones, every value.
_TEXTS = {"name", "namespace", "claimName", "secretName", "serviceAccountName", "storageClassName", "priorityClassName"}
_MAPS_OF_TEXTS = {"labels", "annotations", "matchLabels"}


def no_texts(thing: Any, where: str = "") -> Iterator[str]:
    """Yield the places where a name or a label is a number, as YAML reads one that is made of digits."""
    pairs = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
    for key, value in pairs:
        place = f"{where}.{key}"
        texts = [value] if key in _TEXTS else value.values() if key in _MAPS_OF_TEXTS else ()
        if not all(isinstance(text, str) for text in texts):
            yield place
        yield from no_texts(value, place)


def container(containers: list[Object], name: str) -> Object:
    """A container by name."""
    return next(item for item in containers if item["name"] == name)


def environment(of: Object) -> dict[str, Any]:
    """A container's environment."""
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in of.get("env", [])}


def render(
    *values: Mapping[str, Any] | Path, release: str = "m", namespace: str = "default", look: bool = False
) -> Rendered:
    """Render the chart; with `look`, templates may look things up in the cluster, as at `helm upgrade`."""
    done = _template(json.dumps(merged(*map(_tree, values))), release, namespace, look)
    assert done.returncode == 0, done.stderr
    return Rendered([thing for thing in yaml.safe_load_all(done.stdout) if thing])


def template(values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Render values of which it isn't known whether helm takes them."""
    return _template(json.dumps(values), "m", "default", look=False)


def refusal(*values: Mapping[str, Any], namespace: str = "default", look: bool = False) -> str:
    """Return why helm refuses the values."""
    done = _template(json.dumps(merged(*values)), "m", namespace, look)
    assert done.returncode != 0, "expected helm to refuse this"
    return done.stderr


def assert_names_the_fault(message: str, sentence: str) -> None:
    """Fail unless a refusal says this, and shows nothing of Helm's own insides."""
    assert sentence in message
    for trace in ("nil pointer", "error calling", "wrong type", "executing"):
        assert trace not in message


def defaults_taken_away(chart: Path) -> list[Object]:
    """Return, for each key of a chart's values, the values that take its default away: ``--set KEY=null``."""

    def of(values: Mapping[str, Any]) -> Iterator[Object]:
        for key, value in values.items():
            yield {key: None}
            if isinstance(value, dict) and "requests" not in value:
                for below in of(value):
                    yield {key: below}

    return list(of(yaml.safe_load((chart / "values.yaml").read_text())))


def path_of(values: Mapping[str, Any]) -> str:
    """Return the path of the one key that such values have, with dots between."""
    ((key, below),) = values.items()
    return key if below is None else f"{key}.{path_of(below)}"


def loose_objects(chart: Path) -> set[str]:
    """Return the names of those objects in a chart's schema of which any key is taken, but for Kubernetes' own."""

    def under(node: Any, name: str) -> Iterator[str]:
        if isinstance(node, dict):
            passed_on = "API server" in node.get("description", "")
            if node.get("type") == "object" and "additionalProperties" not in node and not passed_on:
                yield name
            for key, below in node.items():
                yield from under(below, key)
        elif isinstance(node, list):
            for index, below in enumerate(node):
                yield from under(below, str(index))

    return set(under(json.loads((chart / "values.schema.json").read_text()), ""))


def _tree(values: Mapping[str, Any] | Path) -> Mapping[str, Any]:
    return yaml.safe_load(values.read_text()) if isinstance(values, Path) else values


@cache
def _template_offline(values: str, release: str, namespace: str) -> subprocess.CompletedProcess[str]:
    return command("helm", "template", release, str(CHART), "-n", namespace, "--values", "-", stdin=values)


def _template(values: str, release: str, namespace: str, look: bool) -> subprocess.CompletedProcess[str]:
    if not look:
        return _template_offline(values, release, namespace)
    arguments = ("helm", "template", release, str(CHART), "-n", namespace, "--is-upgrade", "--dry-run=server")
    return command(*arguments, "--values", "-", stdin=values)
