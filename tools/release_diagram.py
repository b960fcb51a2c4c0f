"""``make sync``: pictures of a release, drawn from what the chart renders, in Mermaid.

Each picture stands in the document between two marks that name it. Its lines follow from the objects alone: who selects
whom, who names whom. So a picture can't show what the chart doesn't make. Needs helm, and no cluster.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

RELEASE: Final = "muelle"
SLOT_LABEL: Final = "muelle.io/slot"

Object = dict[str, Any]
#: Kind and name.
Node = tuple[str, str]

_ALL: Final = ("Callers", "in the cluster")
_OUTSIDE: Final = ("Callers", "outside")
_GATEWAY: Final = {"backend": "gateway", "gateway": {"parentRefs": [{"name": "your-gateway"}]}}


class DiagramError(Exception):
    """Why there is no picture, in a sentence."""


@dataclass(frozen=True)
class View:
    """A picture: what it is called, the values that it shows, and whether only the way of requests."""

    name: str
    values: Mapping[str, Any]
    requests_only: bool = True


VIEWS: Final = (
    View(
        "objects",
        {"traffic": _GATEWAY, "autoscaling": {"enabled": True}, "serviceMonitor": {"enabled": True}},
        requests_only=False,
    ),
    View("service", {}),
    View("replicas", {"replicas": 4, "traffic": {"backend": "replicas", "candidate": "b", "weight": 25}}),
    View("gateway", {"traffic": {**_GATEWAY, "candidate": "b", "weight": 10, "mirror": 20}}),
)


@dataclass(frozen=True)
class Edge:
    """From one object to another.

    Attributes
    ----------
    source, target : Node
    label : str
    carries : bool
        Whether requests go this way.
    dotted : bool
        Whether nobody waits for the answer, or nothing flows at all.
    """

    source: Node
    target: Node
    label: str = ""
    carries: bool = False
    dotted: bool = False


def render(chart: Path, values: Mapping[str, Any]) -> list[Object]:
    """Return the objects that a chart makes of values.

    Raises
    ------
    DiagramError
        When helm is missing, or refuses them.
    """
    command = ["helm", "template", RELEASE, str(chart), "--skip-tests", "--values", "-"]
    try:
        done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise DiagramError("drawing a release needs helm, which is not on the PATH") from None
    if done.returncode != 0:
        raise DiagramError(f"{' '.join(command)}: {done.stderr.strip()}")
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def edges(objects: Sequence[Object]) -> list[Edge]:
    """Return how objects refer to one another."""
    makers = {
        "Service": _of_service,
        "HTTPRoute": _of_route,
        "HorizontalPodAutoscaler": _of_autoscaler,
        "PodDisruptionBudget": _of_budget,
        "ServiceMonitor": _of_monitor,
        "Deployment": _of_deployment,
        "RoleBinding": _of_binding,
        "Role": _of_role,
    }
    found: list[Edge] = []
    for thing in objects:
        if thing["kind"] in makers:
            found += makers[thing["kind"]](thing, objects)
    return list(dict.fromkeys(found))


def _of_service(service: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    if service["spec"].get("clusterIP") == "None":
        # No way of requests: the replicas look up each other's addresses there.
        yield from (Edge(node(service), node(item), "names", dotted=True) for item in _selected_by(service, objects))
        return
    if SLOT_LABEL not in service["metadata"]["labels"]:
        yield Edge(_ALL, node(service), carries=True)
    for deployment in _selected_by(service, objects):
        ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
        port = service["spec"]["ports"][0]
        target = next(item["containerPort"] for item in ports if item["name"] == port["targetPort"])
        yield Edge(node(service), node(deployment), f"{port['port']} → {target}", carries=True)


def _of_route(route: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    for parent in route["spec"]["parentRefs"]:
        gateway = (parent["kind"], parent["name"])
        yield Edge(_OUTSIDE, gateway, carries=True)
        yield Edge(gateway, node(route), carries=True)
    for rule in route["spec"]["rules"]:
        headers = [header for match in rule["matches"] for header in match.get("headers", [])]
        said = ", ".join(f"{header['name']}: {header['value']}" for header in headers)
        for ref in rule["backendRefs"]:
            if ref["weight"]:
                yield Edge(node(route), (ref["kind"], ref["name"]), said or f"{ref['weight']} %", carries=True)
        for part in rule.get("filters", []):
            mirror = part["requestMirror"]
            target = (mirror["backendRef"]["kind"], mirror["backendRef"]["name"])
            yield Edge(node(route), target, f"copies of {mirror['percent']} %", carries=True, dotted=True)


def _of_autoscaler(scaler: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    target = scaler["spec"]["scaleTargetRef"]
    yield Edge(node(scaler), (target["kind"], target["name"]), "scales", dotted=True)


def _of_budget(budget: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    for deployment in _selected(budget["spec"]["selector"]["matchLabels"], objects):
        yield Edge(node(budget), node(deployment), "guards", dotted=True)


def _of_monitor(monitor: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    selector = monitor["spec"]["selector"]
    for service in objects:
        labels = service["metadata"]["labels"] if service["kind"] == "Service" else None
        if labels is not None and _matches(selector, labels):
            yield Edge(node(monitor), node(service), "scrapes", dotted=True)


def _of_deployment(deployment: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    yield Edge(node(deployment), ("ServiceAccount", account), "runs as", dotted=True)


def _of_binding(binding: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    for subject in binding["subjects"]:
        role = binding["roleRef"]
        yield Edge((subject["kind"], subject["name"]), (role["kind"], role["name"]), "has", dotted=True)


def _of_role(role: Object, objects: Sequence[Object]) -> Iterator[Edge]:
    kinds = {"deployments": "Deployment", "services": "Service", "configmaps": "ConfigMap", "httproutes": "HTTPRoute"}
    for rule in role["rules"]:
        for name in rule.get("resourceNames", []):
            yield Edge(node(role), (kinds[rule["resources"][0]], name), "may change", dotted=True)


def node(thing: Object) -> Node:
    """Return an object's node."""
    return thing["kind"], thing["metadata"]["name"]


def _selected(selector: Mapping[str, str], objects: Iterable[Object]) -> list[Object]:
    deployments = [thing for thing in objects if thing["kind"] == "Deployment"]
    return [item for item in deployments if selector.items() <= item["spec"]["template"]["metadata"]["labels"].items()]


def _selected_by(service: Object, objects: Iterable[Object]) -> list[Object]:
    return _selected(service["spec"]["selector"], objects)


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    tests = {
        "Exists": lambda rule: rule["key"] in labels,
        "DoesNotExist": lambda rule: rule["key"] not in labels,
        "In": lambda rule: labels.get(rule["key"]) in rule["values"],
    }
    return all(tests[rule["operator"]](rule) for rule in selector.get("matchExpressions", []))


def reached(links: Sequence[Edge]) -> list[Edge]:
    """Return only the ways that requests take from their callers, without ends that lead nowhere."""
    ways = [edge for edge in links if edge.carries]
    known = {_ALL, _OUTSIDE}
    while more := {edge.target for edge in ways if edge.source in known} - known:
        known |= more
    return [edge for edge in ways if edge.source in known]


def mermaid(objects: Sequence[Object], links: Sequence[Edge]) -> str:
    """Return a flow chart of the objects that are linked."""
    nodes = list(dict.fromkeys(end for edge in links for end in (edge.source, edge.target)))
    pods = {node(thing): thing["spec"].get("replicas") for thing in objects if thing["kind"] == "Deployment"}
    names = {item: f"n{number}" for number, item in enumerate(nodes)}
    lines = ["```mermaid", "flowchart LR"]
    for item in nodes:
        text = "<br/>".join(item)
        if pods.get(item) is not None:
            text += f"<br/>{pods[item]} {'pod' if pods[item] == 1 else 'pods'}"
        lines.append(f'  {names[item]}["{text}"]')
    for edge in links:
        arrow = "-.->" if edge.dotted else "-->"
        label = f'|"{edge.label}"|' if edge.label else ""
        lines.append(f"  {names[edge.source]} {arrow}{label} {names[edge.target]}")
    return "\n".join([*lines, "```"])


def drawn(chart: Path, view: View) -> str:
    """Return a view's picture."""
    objects = render(chart, view.values)
    links = edges(objects)
    if not view.requests_only:
        return mermaid(objects, [edge for edge in links if edge.source[0] != _ALL[0]])
    return mermaid(objects, reached(links))


def with_picture(document: str, name: str, picture: str, where: str) -> str:
    """Return a document with a picture between its marks.

    Raises
    ------
    DiagramError
        When the marks aren't there, once each and in order.
    """
    begin, end = f"<!-- {name}: written by `make sync` -->", f"<!-- end of {name} -->"
    parts = re.split(f"({re.escape(begin)}|{re.escape(end)})", document)
    if parts[1::2] != [begin, end]:
        raise DiagramError(f"{where}: expected the line {begin} and after it the line {end}")
    return f"{parts[0]}{begin}\n\n{picture}\n\n{end}{parts[4]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pictures, or say that they are out of date."""
    parser = argparse.ArgumentParser(prog="python -m tools.release_diagram", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("chart", type=Path, help="the chart's folder")
    parser.add_argument("document", type=Path, help="the document with the marks")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when it is out of date")
    options = parser.parse_args(arguments)
    try:
        before = text = options.document.read_text("utf-8")
        for view in VIEWS:
            text = with_picture(text, view.name, drawn(options.chart, view), str(options.document))
    except (DiagramError, OSError) as error:
        sys.exit(str(error))
    if text == before:
        return
    if options.check:
        sys.exit(f"{options.document}: is not what {options.chart} renders; run `make sync`")
    options.document.write_text(text, "utf-8")
    sys.stdout.write(f"{options.document}\n")


if __name__ == "__main__":
    main()
