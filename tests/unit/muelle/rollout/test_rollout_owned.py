"""managedFields: what is ours, and giving it up without a trace."""

import pytest

from muelle.rollout.owned import item, owns, without

POD = ("f:spec", "f:template", "f:spec")
PREDICTOR = (*POD, "f:containers", item(name="predictor"))
SERVE = (*PREDICTOR, "f:env", item(name="MUELLE_SERVE"))
IMAGE = (*PREDICTOR, "f:image")
REPLICAS = ("f:spec", "f:replicas")


def thing(**ours):
    helm = {"manager": "helm", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    status = {"manager": "muelle", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}}
    mine = {"manager": "muelle", "operation": "Apply", "apiVersion": "apps/v1", "fieldsV1": ours}
    return {"metadata": {"managedFields": [helm, status, mine]}}


@pytest.fixture
def deployment():
    env = {".": {}, 'k:{"name":"MUELLE_SERVE"}': {".": {}, "f:name": {}, "f:value": {}}}
    container = {".": {}, "f:name": {}, "f:image": {}, "f:env": env}
    pod = {"f:containers": {'k:{"name":"predictor"}': container}}
    return thing(**{"f:spec": {"f:replicas": {}, "f:template": {"f:spec": pod}}})


def test_what_we_applied_is_ours(deployment):
    assert all(owns(deployment, path) for path in (REPLICAS, IMAGE, SERVE))
    assert not owns(deployment, (*PREDICTOR, "f:resources"))
    assert not owns(deployment, ("f:status",))


def test_what_others_applied_is_not():
    assert not owns(thing(), REPLICAS)
    assert not owns({"metadata": {}}, REPLICAS)


def test_a_field_that_is_given_up_leaves_the_others(deployment):
    left = without(deployment, [REPLICAS, IMAGE])
    assert owns({"metadata": {"managedFields": left}}, SERVE)
    assert not owns({"metadata": {"managedFields": left}}, REPLICAS)
    assert not owns({"metadata": {"managedFields": left}}, IMAGE)
    assert owns(deployment, REPLICAS), "the object itself is as it was"


def test_the_last_field_takes_our_entry_with_it(deployment):
    left = without(deployment, [SERVE, IMAGE, REPLICAS])
    assert [(entry["manager"], entry.get("subresource")) for entry in left] == [("helm", None), ("muelle", "status")]


def test_a_list_item_of_which_only_the_key_is_left_goes(deployment):
    left = without(deployment, [SERVE, IMAGE])
    assert left[-1]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}


def test_giving_up_what_is_not_ours_changes_nothing(deployment):
    assert (
        without(deployment, [("f:spec", "f:selector"), (*POD, "f:volumes", "k:x")])
        == deployment["metadata"]["managedFields"]
    )
