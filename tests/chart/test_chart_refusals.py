"""A wrong value stops helm with a sentence that names it, and no trace of templates."""

import json

import pytest
from rendering import (
    CHART,
    DIGEST,
    assert_names_the_fault,
    defaults_taken_away,
    loose_objects,
    merged,
    path_of,
    refusal,
    render,
    template,
)

FETCH = {"models": {"from": "fetch"}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"replica": 3}, "additional properties 'replica' not allowed"),
        ({"replicas": -1}, "at '/replicas': minimum: got -1, want 1"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"image": {"digest": "sha256:abc"}}, "at '/image/digest': 'sha256:abc' does not match"),
        ({"image": {"pullPolicy": "always"}}, "value must be one of 'IfNotPresent', 'Always', 'Never'"),
        ({"traffic": {"backend": "istio"}}, "value must be one of 'service', 'replicas', 'gateway'"),
        ({"traffic": {"weight": 101}}, "at '/traffic/weight': maximum: got 101, want 100"),
        ({"traffic": {"stable": "blue"}}, "at '/traffic/stable': value must be one of 'a', 'b'"),
        ({"slots": {"c": {}}}, "additional properties 'c' not allowed"),
        ({"slots": {"a": {"serve": "iris@1"}}}, "at '/slots/a/serve': got string, want array"),
        ({"models": {"serve": ["iris 1"]}}, "at '/models/serve/0': 'iris 1' does not match"),
        ({"settings": {"maxRow": 5}}, "additional properties 'maxRow' not allowed"),
        ({"settings": {"workers": 0}}, "at '/settings/workers': minimum: got 0, want 1"),
        ({"metrics": {"port": 70000}}, "at '/metrics/port': maximum: got 70,000, want 65,535"),
        ({"metrics": {"port": 8080}}, "metrics.port is 8080, where predictions are answered: take another, or 0"),
        ({"metrics": {"port": 80}}, "metrics.port is 80, where predictions are answered: take another, or 0"),
        ({"resources": {"request": {}}}, "additional properties 'request' not allowed"),
        ({"extraEnv": [{"value": "x"}]}, "at '/extraEnv/0': missing property 'name'"),
        (
            merged(FETCH, {"models": {"fetch": {"bundles": [{"url": "s3://b/iris/1"}]}}}),
            "at '/models/fetch/bundles/0': missing property 'digest'",
        ),
        (
            merged(FETCH, {"models": {"fetch": {"bundles": [{"url": "ftp://b/iris/1", "digest": DIGEST}]}}}),
            "at '/models/fetch/bundles/0/url': 'ftp://b/iris/1' does not match",
        ),
        (FETCH, "slot a has nothing to fetch: set models.fetch.bundles or slots.a.fetch"),
        ({"models": {"from": "volume"}}, "models.volume.existingClaim must name a PersistentVolumeClaim"),
        ({"models": {"volume": {"existingClaim": "c"}}}, "models.from is image: set models.from=volume"),
        (
            {"models": {"fetch": {"bundles": [{"url": "s3://b/i", "digest": DIGEST}]}}},
            "models.fetch.bundles is set, but models.from is image: set models.from=fetch",
        ),
        (
            {"slots": {"b": {"fetch": [{"url": "s3://b/i", "digest": DIGEST}]}}},
            "slots.b.fetch is set, but models.from is image: set models.from=fetch",
        ),
    ],
)
def test_a_wrong_value_is_named(values, sentence):
    assert_names_the_fault(refusal(values), sentence)


@pytest.mark.parametrize("values", defaults_taken_away(CHART), ids=path_of)
def test_a_default_that_is_taken_away_either_does_no_harm_or_is_missed_by_name(values):
    done = template(values)
    if done.returncode != 0:
        assert f"missing property '{path_of(values).rpartition('.')[2]}'" in done.stderr


def test_several_faults_are_told_at_once():
    message = refusal({"models": {"from": "volume"}, "traffic": {"weight": 5}, "keda": {"enabled": True}})
    for part in ("models.volume.existingClaim", "traffic.candidate", "keda.triggers"):
        assert part in message


def test_values_that_a_parent_chart_passes_to_all_its_parts_do_no_harm():
    render({"global": {"anything": 1}})


def test_the_schema_is_strict_wherever_kubernetes_does_not_define_the_value():
    # A parent chart's, and the four that stand for a Kubernetes type as a whole.
    allowed = {"global", "behavior", "affinity", "podSecurityContext", "securityContext"}
    assert loose_objects(CHART) <= allowed


def test_every_property_of_the_schema_says_what_it_is():
    silent = []

    def walk(node, path):
        for name, below in node.get("properties", {}).items():
            if not (below.get("description") or "properties" in below):
                silent.append(f"{path}.{name}")
            walk(below, f"{path}.{name}")
        if "items" in node:
            walk(node["items"], f"{path}[]")

    schema = json.loads((CHART / "values.schema.json").read_text())
    walk(schema, "")
    for name, definition in schema["definitions"].items():
        walk(definition, name)
    assert silent == []
