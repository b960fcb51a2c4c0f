"""Why something isn't ready, from objects as the API server gives them."""

import json

import pytest

from muelle.rollout.health import (
    READY,
    deployment_progress,
    endpoints_progress,
    pod_trouble,
    route_progress,
)


def deployment(want=2, *, generation=3, seen=3, updated=2, total=None, available=2, **status):
    counts = {
        "updatedReplicas": updated,
        "replicas": updated if total is None else total,
        "availableReplicas": available,
    }
    status = {"observedGeneration": seen, **counts, **status}
    return {"metadata": {"generation": generation}, "spec": {"replicas": want}, "status": status}


def pod(name="p", *, ready=False, phase="Running", main=None, init=None, template="1", created="1", **status):
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}, *status.pop("conditions", [])]
    statuses = {"containerStatuses": [{"name": "predictor", "restartCount": 0, "state": {}, **(main or {})}]}
    if init is not None:
        statuses["initContainerStatuses"] = [{"name": "fetch", "restartCount": 0, "state": {}, **init}]
    labels = {"pod-template-hash": template}
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": created},
        "status": {"phase": phase, "conditions": conditions, **statuses, **status},
    }


RUNNING = {"state": {"running": {}}}


def waiting(reason, message="", **more):
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def ended(code, reason="Error", message=""):
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (deployment(seen=2), "the cluster has not seen the change yet"),
        (deployment(updated=1, available=1), "1 of 2 pods ready"),
        (deployment(available=1), "1 of 2 pods ready"),
        (deployment(total=3), "2 of 2 pods ready"),  # an old pod is still there
        ({"metadata": {"generation": 1}, "spec": {}, "status": {"observedGeneration": 1}}, "0 of 1 pods ready"),
    ],
)
def test_a_deployment_that_is_on_its_way(state, reason):
    progress = deployment_progress(state, [], {})
    assert (progress.ready, progress.reason, progress.hopeless) == (False, reason, False)


def test_a_deployment_with_all_its_new_pods_is_ready():
    assert deployment_progress(deployment(), [], {}) == READY
    assert deployment_progress(deployment(0, updated=0, available=0), [], {}) == READY


@pytest.mark.parametrize(
    ("thing", "reason", "hopeless"),
    [
        (pod(main=waiting("ContainerCreating")), "it is starting", False),
        (pod(init=RUNNING, main=waiting("PodInitializing")), "it fetches its models", False),
        (pod(main=RUNNING), "it runs, and is not ready yet", False),
        (
            pod(main={**RUNNING, "restartCount": 1, "lastState": ended(137, "OOMKilled")}),
            "it runs, and is not ready yet; before, it was killed because it used more memory than its limit",
            False,
        ),
        (pod(main=waiting("ErrImagePull", "no such host")), "container predictor: ErrImagePull: no such host", False),
        (pod(main=waiting("ImagePullBackOff", "x")), "container predictor: ImagePullBackOff: x", True),
        (
            pod(main=waiting("CreateContainerConfigError", 'secret "keys" not found')),
            'container predictor: CreateContainerConfigError: secret "keys" not found',
            True,
        ),
        (
            pod(init=waiting("CrashLoopBackOff", restartCount=1, lastState=ended(1, message="Error: nowhere\n"))),
            "container fetch ended with exit code 1: Error: nowhere",
            False,
        ),
        (
            pod(init=waiting("CrashLoopBackOff", restartCount=2, lastState=ended(1, message="Error: nowhere"))),
            "container fetch ended with exit code 1: Error: nowhere",
            True,
        ),
        (
            pod(main=waiting("CrashLoopBackOff", restartCount=5, lastState=ended(137, "OOMKilled"))),
            "container predictor was killed because it used more memory than its limit",
            True,
        ),
        (pod(main={"state": ended(3)}), "container predictor ended with exit code 3 (Error)", False),
        (
            pod(
                phase="Pending",
                conditions=[{"type": "PodScheduled", "status": "False", "message": "0/2 nodes: Insufficient cpu"}],
            ),
            "no node takes it: 0/2 nodes: Insufficient cpu",
            False,
        ),
        (
            pod(phase="Failed", reason="Evicted", message="The node was low on memory"),
            "it failed: The node was low",
            False,
        ),
    ],
)
def test_why_a_pod_is_not_ready(thing, reason, hopeless):
    trouble = pod_trouble(thing, None)
    assert trouble.reason.startswith(f"pod p: {reason}")
    assert trouble.hopeless is hopeless


def test_a_ready_pod_has_no_trouble():
    assert pod_trouble(pod(ready=True, main=RUNNING), None) is None


@pytest.mark.parametrize(
    ("reasons", "hopeless"),
    [
        (["loading"], False),
        (["iris 2: loading"], False),
        (["iris 2: digest"], True),
        (["a: digest", "b: loading"], False),
    ],
)
def test_what_the_predictor_says_of_itself(reasons, hopeless):
    trouble = pod_trouble(pod(main=RUNNING), json.dumps({"reasons": reasons}))
    assert trouble.reason == f"pod p: {'; '.join(reasons)}"
    assert trouble.hopeless is hopeless


@pytest.mark.parametrize("answer", ["", "<html>", "[]", "{}", '{"reasons": 1}', '{"reasons": []}', "null"])
def test_an_answer_that_says_nothing_is_not_a_reason(answer):
    assert pod_trouble(pod(main=RUNNING), answer).reason == "pod p: it runs, and is not ready yet"


def test_a_long_message_is_cut_at_its_beginning():
    thing = pod(main={"state": ended(1, message="x" * 900 + " the cause")})
    reason = pod_trouble(thing, None).reason
    assert reason.endswith(" the cause")
    assert len(reason) < 600


def test_pods_of_an_older_template_are_no_reason():
    old = pod("old", template="1", created="1", main=waiting("ImagePullBackOff"))
    new = pod("new", template="2", created="2", main=RUNNING)
    assert "pod new" in deployment_progress(deployment(available=0), [old, new], {}).reason
    gone = pod("gone", template="3", created="3", main=waiting("ImagePullBackOff"))
    gone["metadata"]["deletionTimestamp"] = "4"
    assert "pod new" in deployment_progress(deployment(available=0), [gone, new], {}).reason


def test_the_hopeless_pod_is_told_first():
    pods = [pod("slow", main=RUNNING), pod("lost", main=waiting("InvalidImageName", "what"))]
    progress = deployment_progress(deployment(available=0), pods, {})
    assert progress.reason == "0 of 2 pods ready; pod lost: container predictor: InvalidImageName: what"
    assert progress.hopeless


@pytest.mark.parametrize(
    ("message", "hopeless"),
    [('pods "x" is forbidden: violates PodSecurity', True), ('pods "x" is forbidden: exceeded quota: cpu', False)],
)
def test_pods_that_may_not_be_made(message, hopeless):
    failure = [{"type": "ReplicaFailure", "status": "True", "message": message}]
    progress = deployment_progress(deployment(updated=0, available=0, conditions=failure), [], {})
    assert progress.reason == f"0 of 2 pods ready; {message}"
    assert progress.hopeless is hopeless


def route(*parents, generation=2, refs=({"name": "local", "namespace": "gw"},)):
    return {
        "metadata": {"generation": generation, "namespace": "ns"},
        "spec": {"parentRefs": list(refs)},
        "status": {"parents": list(parents)},
    }


def parent(accepted="True", resolved="True", seen=2, **ref):
    conditions = [
        {"type": "Accepted", "status": accepted, "observedGeneration": seen, "reason": "R", "message": "m"},
        {"type": "ResolvedRefs", "status": resolved, "observedGeneration": seen, "reason": "R", "message": "m"},
    ]
    return {"parentRef": {"name": "local", "namespace": "gw", **ref}, "conditions": conditions}


def test_a_route_that_every_gateway_serves_as_it_is():
    assert route_progress(route(parent())) == READY
    own = {"name": "local"}
    assert route_progress(route(parent(namespace="ns"), refs=[own])) == READY


@pytest.mark.parametrize(
    ("thing", "reason", "hopeless"),
    [
        (route(), "gateway local has not taken it up", False),
        (route(parent(name="other")), "gateway local has not taken it up", False),
        (route(parent(), refs=[{"name": "nowhere"}]), "gateway nowhere has not taken it up", False),
        (route(parent(seen=1)), "gateway local has not seen the change yet", False),
        (route(parent(accepted="False")), "gateway local says Accepted is False: R: m", True),
        (route(parent(resolved="False")), "gateway local says ResolvedRefs is False: R: m", True),
    ],
)
def test_a_route_that_is_not_served(thing, reason, hopeless):
    progress = route_progress(thing)
    assert progress.reason.startswith(reason)
    assert (progress.ready, progress.hopeless) == (False, hopeless)


def endpoints(*names, ready=True):
    return {"endpoints": [{"targetRef": {"name": name}, "conditions": {"ready": ready}} for name in names]}


def test_endpoints_have_followed_when_they_are_the_slots_and_nobody_elses():
    a, b = frozenset({"a1", "a2"}), frozenset({"b1"})
    assert endpoints_progress([endpoints("a1")], [a], b).ready
    assert endpoints_progress([endpoints("a1"), endpoints("b1", ready=False)], [a], b).ready
    assert endpoints_progress([endpoints("a1"), endpoints("b1")], [a, b], frozenset()).ready
    assert not endpoints_progress([endpoints("a1", "b1")], [a], b).ready
    assert not endpoints_progress([endpoints("a1")], [a, b], frozenset()).ready
    assert not endpoints_progress([{"endpoints": None}], [a], b).ready
