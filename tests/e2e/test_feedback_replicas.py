"""Labels in a release of several replicas: whichever pod gets them, the one that answered counts them, once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from cluster import until
from prometheus_client.parser import text_string_to_metric_families
from release import Release

Install = Callable[..., Release]
Report = Callable[[object], None]

ROW = [6.0, 2.7, 5.1, 1.6]
PER_POD = 40


@pytest.fixture(scope="module")
def release(install: Install) -> Release:
    """Two pods of version 1, one of version 2, two workers each."""
    values = {
        "replicas": 3,
        "settings": {"workers": 2},
        "traffic": {"backend": "replicas", "candidate": "b", "weight": 33},
        "slots": {"b": {"serve": ["iris@2"]}},
        "networkPolicy": {"enabled": True},
    }
    made = install("labels", values)
    made.wait_settled()
    assert (len(made.pods("a")), len(made.pods("b"))) == (2, 1)
    return made


def post(url: str, path: str, document: Any) -> tuple[Any, str]:
    """Ask on a connection of its own; the answer and its id."""
    headers = {"Content-Type": "application/json", "Connection": "close"}
    request = urllib.request.Request(url + path, json.dumps(document).encode(), headers)
    with urllib.request.urlopen(request, timeout=15) as response:
        return json.load(response), response.headers["X-Request-Id"]


def tell(url: str, labels: Any) -> list[Any]:
    """Send labels, again while a replica did not answer in time, as a caller should; return the answers."""
    answers: list[Any] = []

    def all_asked() -> bool:
        answers.append(post(url, "/feedback", labels)[0])
        return "unreachable" not in answers[-1]

    until(all_asked, "all replicas asked", 60)
    return answers


def counted(release: Release, name: str, **labels: str) -> float:
    """Add up a metric over all pods."""
    return sum(
        sample.value
        for pod in release.names()
        for family in text_string_to_metric_families(release.metrics(pod))
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_labels_that_one_pod_gets_are_matched_by_the_pods_that_answered(release: Release, report: Report) -> None:
    names = release.names()
    # Every pod's address has to be in the Service's name first.
    until(lambda: len(release.endpoints(f"{release.fullname}-pods")) == len(names), "all pods in the pods' Service")
    labels = []
    for pod in names:
        with release.forwarded(f"pod/{pod}", 8080) as url:
            for _ in range(PER_POD):
                answer, request_id = post(url, "/predict", {"features": [ROW, ROW]})
                labels += [{"request_id": request_id, "row": row, "label": row + 1} for row in (0, 1)]
                assert len(answer["predictions"]) == 2
    with release.forwarded() as url:
        first = tell(url, labels)
        again = tell(url, labels)
        assert counted(release, "muelle_feedback_total", result="unmatched") == sum(
            answer["unmatched"] for answer in (*first, *again)
        )
        # The list as a whole is refused, by a pod that was asked.
        with pytest.raises(urllib.error.HTTPError) as refused:
            tell(url, [*labels, *({**label, "label": "rose"} for label in labels)])
        error = json.load(refused.value)["error"]
    report(f"{len(labels)} labels of {len(names)} pods: {first}, again: {again[-1]}")
    # A pod may have counted what it was too slow to say; then the counters below say that it did so once.
    assert len(first) > 1 or first == [{"matched": len(labels), "duplicate": 0, "unmatched": 0}]
    assert first[-1]["matched"] + first[-1]["duplicate"] == len(labels)
    assert again[-1] == {"matched": 0, "duplicate": len(labels), "unmatched": 0}
    assert refused.value.code == 400
    assert "expected one of the classes" in error
    for version, pods in (("1", 2), ("2", 1)):
        each = {"model": "iris", "version": version}
        assert counted(release, "muelle_feedback_total", result="matched", **each) == pods * PER_POD * 2
        assert counted(release, "muelle_feedback_outcomes_total", actual="1", **each) == pods * PER_POD
        # The row has one prediction, its two labels are two classes: one of them is right.
        assert counted(release, "muelle_feedback_correct_total", **each) == pods * PER_POD


def test_what_nobody_answered_is_counted_once_in_the_release(release: Release) -> None:
    before = counted(release, "muelle_feedback_total", result="unmatched")
    failed = counted(release, "muelle_feedback_peer_requests_total", result="failed")
    with release.forwarded() as url:
        answers = tell(url, [{"request_id": f"never-{n}", "label": 1} for n in range(10)])
    assert answers[-1] == {"matched": 0, "duplicate": 0, "unmatched": 10}
    assert counted(release, "muelle_feedback_total", result="unmatched") == before + 10 * len(answers)
    failed += sum(answer.get("unreachable", 0) for answer in answers)
    assert counted(release, "muelle_feedback_peer_requests_total", result="failed") == failed
