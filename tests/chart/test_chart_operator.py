"""What the operator's ServiceAccount may do, as the API server of the current context says, and what it may not."""

import time

import pytest
from cluster_objects import kubectl
from rendering import GATEWAY, command, render

MAY = [
    ("get", "deployments.apps/m-muelle-a"),
    ("patch", "deployments.apps/m-muelle-b"),
    ("get", "services/m-muelle"),
    ("patch", "services/m-muelle"),
    ("list", "services"),
    ("get", "configmaps/m-muelle-rollout"),
    ("update", "configmaps/m-muelle-rollout"),
    ("create", "configmaps"),
    ("list", "pods"),
    ("list", "endpointslices.discovery.k8s.io"),
    ("get", "httproutes.gateway.networking.k8s.io/m-muelle"),
    ("patch", "httproutes.gateway.networking.k8s.io/m-muelle"),
]
MAY_NOT = [
    ("patch", "deployments.apps/other"),
    ("delete", "deployments.apps/m-muelle-a"),
    ("create", "deployments.apps"),
    ("patch", "services/other"),
    ("update", "configmaps/other"),
    ("get", "configmaps/other"),
    ("delete", "configmaps/m-muelle-rollout"),
    ("patch", "httproutes.gateway.networking.k8s.io/other"),
    ("get", "secrets"),
    ("list", "secrets"),
    ("create", "pods"),
    ("create", "pods/exec"),
    ("create", "pods/proxy"),
    ("create", "serviceaccounts/token"),
    ("patch", "roles.rbac.authorization.k8s.io"),
]


@pytest.fixture(scope="module")
def operator(namespace):
    """The account, with its rights; nothing else of the release is there."""
    release = render(GATEWAY, namespace=namespace)
    for kind in ("Role", "RoleBinding"):
        kubectl(namespace, "create", document=release.one(kind, "m-muelle-operator"))
    account = f"system:serviceaccount:{namespace}:m-muelle-operator"
    # The API server hears of a new RoleBinding a moment later.
    deadline = time.monotonic() + 10
    while not allowed(namespace, account, *MAY[0]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return account


def allowed(namespace, operator, verb, what):
    resource, _, below = what.partition("/")
    arguments = [f"{resource}/{below}"]
    if below in ("exec", "proxy", "token"):
        arguments = [resource, "--subresource", below]
    done = command(
        "kubectl", "-n", namespace, "auth", "can-i", verb, *arguments if below else [resource], "--as", operator
    )
    assert done.stdout.strip() in ("yes", "no"), done.stderr
    return done.stdout.strip() == "yes"


def test_all_that_the_commands_do_is_allowed(namespace, operator):
    assert [need for need in MAY if not allowed(namespace, operator, *need)] == []
    assert allowed(namespace, operator, "get", "pods/proxy")


def test_nothing_wider_is_allowed_and_nothing_in_other_namespaces(namespace, operator):
    assert [wide for wide in MAY_NOT if allowed(namespace, operator, *wide)] == []
    assert [need for need in MAY if allowed("default", operator, *need)] == []
