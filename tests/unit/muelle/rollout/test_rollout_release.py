"""Finding a release, and the facts on its Service."""

import copy

import pytest
from fake_cluster import FakeCluster

from muelle.errors import RecordError, RefusedError
from muelle.rollout.release import Release, find_release


@pytest.fixture
def cluster():
    return FakeCluster("replicas", replicas=3, models_from="fetch")


def test_the_only_release_needs_no_name(cluster):
    release = find_release(cluster, None)
    assert release == Release("m", "ns", "m-muelle", "uid-m-muelle", "replicas", 3, False, "X-Muelle-Slot", "fetch")
    assert release == find_release(cluster, "m")
    assert (release.slot_name("b"), release.record_name) == ("m-muelle-b", "m-muelle-rollout")
    assert str(release) == "release m in namespace ns"


def test_one_of_several_must_be_named(cluster):
    second = copy.deepcopy(cluster.objects["Service", "m-muelle"])
    second["metadata"] |= {"name": "n-muelle", "labels": {**second["metadata"]["labels"]}}
    second["metadata"]["labels"]["app.kubernetes.io/instance"] = "n"
    cluster.objects["Service", "n-muelle"] = second
    with pytest.raises(RefusedError, match="several releases in namespace ns: name one with --release: m, n"):
        find_release(cluster, None)
    assert find_release(cluster, "n").fullname == "n-muelle"
    with pytest.raises(RefusedError, match="no release 'x' of Muelle in namespace ns; there is m, n"):
        find_release(cluster, "x")


def test_services_without_facts_are_not_releases(cluster):
    # The slots' Services have the same labels.
    cluster.objects["Service", "m-muelle"]["metadata"]["annotations"] = {}
    with pytest.raises(RefusedError, match="no release of Muelle in namespace ns: install one with helm"):
        find_release(cluster, None)
    with pytest.raises(RefusedError, match=r"no release 'm' .*; there is none"):
        find_release(cluster, "m")


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("backend", "istio", "muelle.io/backend: expected one of service, replicas, gateway, got 'istio'"),
        ("replicas", "0", "muelle.io/replicas: expected a positive number, got '0'"),
        ("replicas", "many", "muelle.io/replicas: expected a positive number, got 'many'"),
        ("replicas", None, "muelle.io/replicas: expected a value, got None"),
        ("autoscaling", "yes", "muelle.io/autoscaling: expected one of true, false, got 'yes'"),
        ("header", "", "muelle.io/header: expected a value, got ''"),
        ("models-from", "disk", "muelle.io/models-from: expected one of image, volume, fetch, got 'disk'"),
    ],
)
def test_a_fact_that_can_not_be_read_is_named(cluster, fact, value, message):
    cluster.objects["Service", "m-muelle"]["metadata"]["annotations"][f"muelle.io/{fact}"] = value
    with pytest.raises(RecordError) as caught:
        find_release(cluster, None)
    assert str(caught.value) == f"Service m-muelle: annotation {message}"
