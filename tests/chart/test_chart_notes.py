"""What helm prints after an install can be typed in as it stands."""

import json
import re

from rendering import CHART, DIGEST, GATEWAY, command, merged


def notes(*values):
    arguments = ("helm", "install", "m", str(CHART), "-n", "models", "--dry-run=client", "--output", "json")
    done = command(*arguments, "--values", "-", stdin=json.dumps(merged(*values)))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["info"]["notes"]


def test_the_demo_gets_its_port_forward_and_a_real_request():
    text = notes()
    assert "kubectl --namespace models port-forward service/m-muelle 8080:80" in text
    (body,) = re.findall(r"-d '(.*)'", text)
    assert json.loads(body) == {"features": [5.1, 3.5, 1.4, 0.2]}


def test_own_models_get_a_way_to_a_request_of_theirs():
    own = {"image": {"repository": "registry.example/churn"}}
    fetched = {"models": {"from": "fetch", "fetch": {"bundles": [{"url": "s3://b/c/1", "digest": DIGEST}]}}}
    for values in (own, fetched, {"models": {"serve": ["linear"]}}):
        text = notes(values)
        assert "localhost:8080/openapi.json" in text
        assert "5.1" not in text


def test_a_mirrored_repository_still_is_the_demo():
    assert "5.1" in notes({"image": {"repository": "registry.example:5000/mirror/muelle"}})


def test_callers_with_keys_are_told_the_header():
    text = notes({"auth": {"existingSecret": "keys"}})
    assert '-H "X-API-Key: $MUELLE_API_KEY"' in text
    assert "helm test m" not in text


def test_the_ways_in_from_outside_are_named():
    assert "http://h.example/" in notes(GATEWAY, {"traffic": {"gateway": {"hostnames": ["h.example"]}}})
    assert "https://i.example/" in notes(
        {"ingress": {"enabled": True, "hosts": ["i.example"], "tls": [{"secretName": "s"}]}}
    )


def test_the_rollout_in_progress_is_told():
    text = notes(GATEWAY, {"traffic": {"candidate": "b", "weight": 10, "mirror": 20}})
    assert "slot b is the candidate with 10 % of the requests and copies of 20 %" in text
    assert "traffic.stable" in notes({"rollout": {"ignoreRecord": True}})
