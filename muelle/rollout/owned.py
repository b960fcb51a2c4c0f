"""Who manages which field: server-side apply's `managedFields`, as far as they are ours. Pure.

A field that was applied once and is left out the next time is removed by the API server, unless another manager has it
too. So what the record no longer speaks of is applied with the chart's value first and then given up: the value stays,
and `helm upgrade` meets no conflict.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

from muelle.rollout.cluster import Object

MANAGER: Final = "muelle"
#: A field's place in FieldsV1: `f:` and a field's name, or `k:` and a list item's key.
Path = tuple[str, ...]


def item(**key: str) -> str:
    """Return a list item's step in a path, such as ``k:{"name":"predictor"}``."""
    return "k:{" + ",".join(f'"{name}":"{value}"' for name, value in key.items()) + "}"


def owns(thing: Object, path: Path) -> bool:
    """Whether we have applied this field, or something in it, and it is still ours."""
    for entry in _ours(thing):
        node: Any = entry.get("fieldsV1", {})
        for step in path:
            node = node.get(step) if isinstance(node, dict) else None
        if node is not None:
            return True
    return False


def without(thing: Object, paths: Iterable[Path]) -> list[Object]:
    """Return the object's managedFields without our entries for these fields."""
    managed: list[Object] = copy.deepcopy(thing["metadata"].get("managedFields") or [])
    ours = [entry for entry in managed if _is_ours(entry)]
    for entry in ours:
        for path in paths:
            _remove(entry["fieldsV1"], path)
    return [entry for entry in managed if not (_is_ours(entry) and not entry["fieldsV1"])]


def _is_ours(entry: Object) -> bool:
    return entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource")


def _ours(thing: Object) -> list[Object]:
    return [entry for entry in thing["metadata"].get("managedFields") or [] if _is_ours(entry)]


def _remove(node: dict[str, Any], path: Path) -> None:
    """Remove a field, and what then holds no field any more: a list item of which only the key is left holds none."""
    step, rest = path[0], path[1:]
    below = node.get(step)
    if below is None:
        return
    if rest:
        _remove(below, rest)
        key = {"f:name"} if step.startswith("k:") else set()
        if below.keys() - key - {"."}:
            return
    del node[step]
