"""A Prometheus and an Alertmanager in the cluster as the tests ask them; the monitoring chart; rows that drift."""

from __future__ import annotations

import json
import math
import os
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cluster import Kube, until
from images import ROOT
from release import INFER, Release

CHART = ROOT / "charts" / "muelle-monitoring"
#: What stands for the official images where those can't be pulled.
PROMETHEUS_IMAGE = os.environ.get("MUELLE_E2E_PROMETHEUS_IMAGE", "quay.io/prometheus/prometheus:v3.15.0")
ALERTMANAGER_IMAGE = os.environ.get("MUELLE_E2E_ALERTMANAGER_IMAGE", "quay.io/prometheus/alertmanager:v0.28.1")
#: So often that a test needs no patience; the rules' windows are the shipped ones.
SECONDS = 5
#: The petals' width, of which `shifted` adds to each row.
COLUMN = 3


@dataclass(frozen=True)
class Sample:
    """A series' labels and its value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """One Prometheus, reached by way of the API server, so that it may restart in between."""

    kube: Kube
    namespace: str
    pod: str

    def api(self, path: str, **parameters: str) -> Any:
        """Return what its HTTP API answers to a GET."""
        where = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}:9090/proxy/api/v1/{path}"
        document = json.loads(self.kube.run("get", "--raw", f"{where}?{urlencode(parameters)}"))
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """Return the value of an expression, now or at a time in Unix seconds."""
        moment = {} if at is None else {"time": f"{at:.3f}"}
        result = self.api("query", query=expression, **moment)["result"]
        return [Sample(item["metric"], float(item["value"][1])) for item in result]

    def value(self, expression: str, at: float | None = None) -> float:
        """Return the value of an expression that has one."""
        samples = self.query(expression, at)
        assert len(samples) == 1, f"{expression}: {samples}"
        return samples[0].value

    def targets(self) -> list[Any]:
        """Return the targets that it scrapes."""
        targets: list[Any] = self.api("targets", state="active")["activeTargets"]
        return targets

    def rules(self) -> list[Any]:
        """Return its rules, of all groups."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def alerts(self, name: str, state: str = "firing") -> list[Mapping[str, str]]:
        """Return the labels of an alert's instances in a state."""
        found = [item for item in self.api("alerts")["alerts"] if item["state"] == state]
        return [item["labels"] for item in found if item["labels"]["alertname"] == name]

    def wait_ready(self, seconds: float = 150.0) -> None:
        """Wait until its pod is ready."""
        until(lambda: self.kube.exists("pod", self.pod, self.namespace), f"pod {self.pod}", seconds)
        self.kube.wait("condition=Ready", f"pod/{self.pod}", self.namespace, seconds)

    def wait_targets_up(self, release: Release, seconds: float = 90.0) -> list[Any]:
        """Wait until it scrapes just the pods that a release has, each once, and return the targets."""

        def all_up() -> list[Any]:
            found = [target for target in self.targets() if target["labels"].get("release") == release.name]
            states = [(target["labels"]["pod"], target["health"], target["lastError"]) for target in found]
            assert sorted(pod for pod, _, _ in states) == release.names(), states
            assert {health for _, health, _ in states} == {"up"}, states
            return found

        return until(all_up, f"targets of {release.name} up", seconds)

    def wait_rules_healthy(self, seconds: float = 90.0) -> int:
        """Wait until it has evaluated every rule of the chart without an error, and return how many they are."""
        expected = rule_names()

        def healthy() -> bool:
            rules = self.rules()
            assert sorted(rule["name"] for rule in rules) == expected
            faults = {rule["name"]: (rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"}
            assert not faults, faults
            return True

        until(healthy, "rules evaluated", seconds)
        return len(expected)


def rule_names() -> list[str]:
    """Return the names of all rules in the chart's files, one that occurs twice twice."""
    import yaml

    groups = [
        group
        for path in (CHART / "files" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    return sorted(rule.get("record") or rule["alert"] for group in groups for rule in group["rules"])


@dataclass(frozen=True)
class Alertmanager:
    """One Alertmanager, reached by way of the API server."""

    kube: Kube
    namespace: str
    pod: str

    def alerts(self, name: str) -> list[Mapping[str, str]]:
        """Return the labels of an alert's instances that it knows to be going on."""
        where = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}:9093/proxy/api/v2/alerts?active=true"
        found = json.loads(self.kube.run("get", "--raw", where))
        return [item["labels"] for item in found if item["labels"]["alertname"] == name]


def image(reference: str) -> dict[str, str]:
    """Return an image's reference as the chart's values have it."""
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def stand_ins() -> str:
    """Return the flags with which helm runs what stands for the official images, Grafana not among them."""
    images = {"prometheus": PROMETHEUS_IMAGE, "alertmanager": ALERTMANAGER_IMAGE}
    flags = [
        f"--set-string standalone.{component}.image.{key}={value}"
        for component, reference in images.items()
        for key, value in image(reference).items()
    ]
    return " ".join((*flags, "--set standalone.grafana.enabled=false"))


def helm(kube: Kube, verb: str, name: str, namespace: str, values: Mapping[str, Any]) -> None:
    """Install or upgrade the monitoring chart and wait until it runs."""
    arguments = (verb, name, str(CHART), "-n", namespace, "-f", "-", "--wait", "--timeout=180s")
    try:
        kube.helm(*arguments, stdin=json.dumps(values))
    except AssertionError as error:
        pods = kube.run("get", "pods", "-n", namespace, "-o", "wide", check=False)
        raise AssertionError(f"{error}\n{pods}\n{kube.events(namespace)}") from error


def usual_rows() -> list[list[float]]:
    """Return the rows that the models were made from, shape (150, 4), so that nothing has drifted."""
    from training.data import iris

    rows: list[list[float]] = iris().features.to_numpy().tolist()
    return rows


def shifted(rows: Sequence[Sequence[float]], by: float) -> list[list[float]]:
    """Return rows with something added to one column."""
    return [[value + by * (column == COLUMN) for column, value in enumerate(row)] for row in rows]


def send(url: str, rows: Sequence[Sequence[float]]) -> None:
    """Ask for the predictions of rows, in one request."""
    data = [value for row in rows for value in row]
    tensor = {"name": "input", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": data}
    body = json.dumps({"inputs": [tensor], "outputs": [{"name": "predict"}]}).encode()
    request = urllib.request.Request(url + INFER, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def check_drift(prometheus: Prometheus, release: Release, pod: str | None = None) -> str:
    """Send rows that haven't drifted, then rows that have, to the Service or one pod; return what became of them."""
    where = f'{{namespace="{release.namespace}",model="iris",version="1"}}'

    def excess() -> dict[str, float]:
        samples = prometheus.query(f"muelle:feature_psi_excess:ratio1h{where}")
        return {sample.labels["feature"]: sample.value for sample in samples}

    def counted(rows: int) -> bool:
        # A group's rules are written one after another: not before the excess of the same evaluation is there.
        observations = f"muelle:feature_observations:increase1h{where}"
        same = f"timestamp(muelle:feature_psi_excess:ratio1h{where}) >= timestamp({observations})"
        samples = prometheus.query(f"{observations} and {same}")
        by_feature = {sample.labels["feature"]: sample.value for sample in samples}
        # `increase` extends what it saw to the window's ends, by some percent where the window has just begun.
        return bool(by_feature) and by_feature.get("predict", 0.0) > 0.9 * rows

    watched = {pod} if pod else set(release.names())

    def at_zero() -> bool:
        # What the first scrape of a counter finds in it is in no increase.
        samples = prometheus.query(f"sum by (pod) (muelle_feature_bin_total{where})")
        assert watched <= {sample.labels["pod"] for sample in samples}, samples
        return True

    until(at_zero, "the counters scraped with nothing in them", 60)
    rows = usual_rows()
    with release.forwarded(*((f"pod/{pod}", 8080) if pod else ())) as url:
        send(url, rows * 2)
        until(lambda: counted(300), "300 rows counted", 100)
        before = excess()
        assert max(before.values()) < 0.05, before
        send(url, shifted(rows, 1.0) * 4)
        until(lambda: counted(900), "900 rows counted", 100)
    after = excess()
    feature = max((name for name in after if name not in ("predict", "confidence")), key=lambda name: after[name])
    assert after[feature] > 0.2, after
    others = [value for name, value in after.items() if name not in (feature, "predict", "confidence")]
    assert max(others) < 0.05, after
    assert not math.isclose(before[feature], after[feature])
    # It has to last a quarter of an hour before somebody is told.
    waiting = until(lambda: prometheus.alerts("MuelleFeatureDrift", "pending"), "the drift alert pending", 30)
    assert [labels["feature"] for labels in waiting] == [feature]
    return f"excess of {feature}: {before[feature]:.3f}, then {after[feature]:.3f}; others at most {max(others):.3f}"
