"""``k8s/`` and the chart say the same: each overlay is a release called muelle with the values that stand here."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT, Object, command, render

from muelle import __version__

K8S = ROOT / "k8s"
EG = {"name": "eg", "namespace": "default"}
BOTH = {"a": {"serve": ["iris"]}, "b": {"serve": ["iris"]}}
VALUES: dict[str, Object] = {
    "base": {},
    "overlays/dev": {
        "image": {"tag": "dev"},
        "replicas": 1,
        "service": {"type": "NodePort"},
        "settings": {"logLevel": "debug"},
    },
    "overlays/blue-green": {"traffic": {"candidate": "b"}, "slots": BOTH},
    "overlays/canary": {
        "traffic": {"backend": "gateway", "candidate": "b", "weight": 10, "gateway": {"parentRefs": [EG]}},
        "slots": BOTH,
    },
}
#: Who made the object, which is another one in each case.
MAKERS = {"app.kubernetes.io/managed-by", "helm.sh/chart"}


@functools.cache
def built(folder: str) -> list[Object]:
    done = command("kubectl", "kustomize", str(K8S / folder))
    assert done.returncode == 0, done.stderr
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def comparable(thing: Object) -> Object:
    """An object with what is free to differ taken away or put in order."""
    labels = thing["metadata"]["labels"]
    metadata = {key: value for key, value in thing["metadata"].items() if key != "labels"}
    kept = {key: value for key, value in labels.items() if key not in MAKERS}
    result = {**thing, "metadata": {**metadata, "labels": kept}}
    if thing["kind"] == "Deployment":
        (container,) = thing["spec"]["template"]["spec"]["containers"]
        # None of them refers to another, so that their order says nothing.
        container["env"].sort(key=lambda item: item["name"])
    if thing["kind"] == "Role":
        thing["rules"].sort(key=lambda rule: json.dumps(rule, sort_keys=True))
    return result


def by_name(objects: list[Object]) -> dict[str, Object]:
    return {
        f"{thing['kind']} {thing['metadata']['name']}": comparable(thing)
        for thing in objects
        # `helm test` is helm's.
        if thing["kind"] != "Pod" and "helm.sh/hook" not in thing["metadata"].get("annotations", {})
    }


@pytest.mark.parametrize("folder", VALUES)
def test_every_object_equals_the_charts(folder):
    ours = by_name(built(folder))
    theirs = by_name(render(VALUES[folder], release="muelle", namespace="muelle").objects)
    assert sorted(ours) == sorted(theirs)
    for name, thing in theirs.items():
        # As text, of which pytest shows the lines that differ.
        assert yaml.safe_dump(ours[name]) == yaml.safe_dump(thing), name


def test_every_overlay_is_compared():
    folders = {str(path.parent.relative_to(K8S)) for path in K8S.rglob("kustomization.yaml")}
    assert folders == set(VALUES)


def test_the_slots_differ_by_their_letter_only():
    a, b = ((K8S / "base" / f"slot-{slot}.yaml").read_text() for slot in "ab")
    a, b = (re.sub(r"^#.*\n", "", text) for text in (a, b))
    assert a.replace("muelle-a", "muelle-b").replace("slot: a", "slot: b").replace("replicas: 2", "replicas: 0") == b


@pytest.mark.parametrize("folder", VALUES)
def test_the_version_is_this_one(folder):
    if folder != "overlays/dev":
        images = {image for thing in built(folder) for image in images_of(thing)}
        assert images == {f"muelle:{__version__}"}
    assert {thing["metadata"]["labels"]["app.kubernetes.io/version"] for thing in built(folder)} == {__version__}


def images_of(thing: Object) -> list[Any]:
    spec = thing.get("spec", {}).get("template", {}).get("spec", {})
    return [item["image"] for item in spec.get("containers", [])]


def test_it_is_plain_yaml():
    """Nothing is generated, and nothing comes from elsewhere: what the files say is what is applied."""
    allowed = {"apiVersion", "kind", "namespace", "resources", "images", "replicas", "labels", "patches"}
    for path in K8S.rglob("kustomization.yaml"):
        document = yaml.safe_load(path.read_text())
        assert set(document) <= allowed, path
        assert not [item for item in document["resources"] if "://" in item], path
    assert {path.suffix for path in Path(K8S).rglob("*") if path.is_file()} == {".yaml"}
