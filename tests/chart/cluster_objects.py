"""Putting objects into the cluster of the current context, and reading them back."""

from __future__ import annotations

import json
from typing import Any

from rendering import CHART, Object, command

#: No pod needs to start where only objects are looked at: no node takes them, so that they cost other tests nothing.
NO_PODS: Object = {"image": {"tag": "there-is-none"}, "nodeSelector": {"kubernetes.io/hostname": "there-is-none"}}

RECORD: Object = {
    "format_version": 1,
    "stable": "a",
    "candidate": "b",
    "weight": 10,
    "mirror": 20,
    "header": True,
    "replicas": {"a": 9, "b": 1},
    "slots": {
        "a": {"serve": "iris@1", "fetch": "", "image": "", "since": "2026-01-01T00:00:00Z"},
        "b": {"serve": "iris@2", "fetch": "", "image": "", "since": "2026-01-02T00:00:00Z"},
    },
    "since": "2026-01-02T00:00:00Z",
}


def kubectl(namespace: str, *arguments: str, document: Any = None) -> str:
    """Run kubectl; return what it prints."""
    stdin = None if document is None else json.dumps(document)
    done = command("kubectl", "-n", namespace, *arguments, *(() if stdin is None else ("-f", "-")), stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(namespace: str, kind: str, name: str) -> Object:
    """Read an object."""
    found: Object = json.loads(kubectl(namespace, "get", kind, name, "--output", "json", "--show-managed-fields"))
    return found


def helm(namespace: str, verb: str, values: Object, *flags: str) -> tuple[bool, str]:
    """Install or upgrade release m; return whether it went well, and what helm said."""
    arguments = ("helm", verb, "m", str(CHART), "-n", namespace, *flags)
    done = command(*arguments, "--values", "-", stdin=json.dumps(values))
    return done.returncode == 0, done.stdout + done.stderr


def record_map(record: Object, owner: str | None = None) -> Object:
    """Return the ConfigMap that holds a record, and belongs to a Service of that uid."""
    meta: Object = {"name": "m-muelle-rollout"}
    if owner is not None:
        meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Service", "name": "m-muelle", "uid": owner}]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"record.json": json.dumps(record)}}


def put_record(namespace: str, record: Object, owner: str | None = None) -> None:
    """Write the record, whatever was there."""
    kubectl(namespace, "apply", "--server-side", "--force-conflicts", document=record_map(record, owner))


def forget_record(namespace: str) -> None:
    """Remove the record."""
    kubectl(namespace, "delete", "configmap", "m-muelle-rollout", "--ignore-not-found")
