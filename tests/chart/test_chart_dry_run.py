"""The API server of the current context takes every documented values file as it is.

A kind that the cluster doesn't have (KEDA's ScaledObject, mostly) is left out, and that is said: a server can't check
what isn't installed.
"""

import json

import pytest
from cluster_objects import kubectl
from rendering import EXAMPLES, GATEWAY, command, render


@pytest.fixture(scope="module")
def accounts(namespace):
    """The namespace, with the ServiceAccount that a pod's admission asks for even when nothing is to be made."""
    account = render(namespace=namespace).one("ServiceAccount", "m-muelle")
    kubectl(namespace, "apply", "--server-side", document=account)
    return namespace


@pytest.fixture(scope="module")
def known():
    """The kinds that the cluster has."""
    table = command("kubectl", "api-resources", "--no-headers").stdout
    return {line.split()[-1] for line in table.splitlines()}


@pytest.mark.parametrize("values", [{}, GATEWAY, *EXAMPLES], ids=lambda value: getattr(value, "stem", "values"))
def test_the_api_server_takes_what_is_rendered_and_pod_security_has_nothing_to_warn_of(values, accounts, known, capsys):
    release = render(values, namespace=accounts)
    objects = [thing for thing in release.objects if thing["kind"] in known]
    if missing := release.kinds() - known:
        with capsys.disabled():
            print(f"\nnot checked, as this cluster has no such kind: {', '.join(sorted(missing))}", end=" ")
    document = {"apiVersion": "v1", "kind": "List", "items": objects}
    arguments = ("kubectl", "-n", accounts, "apply", "--server-side", "--dry-run=server", "--filename", "-")
    done = command(*arguments, stdin=json.dumps(document))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(objects)
