"""Where models come from, and which of them are served."""

import pytest
from rendering import DIGEST, environment, merged, render

FETCH = {"models": {"from": "fetch", "fetch": {"bundles": [{"url": "s3://b/iris/1", "digest": DIGEST}]}}}


def test_models_in_the_image_are_found_by_the_images_own_search_list():
    release = render()
    assert "MUELLE_MODELS" not in release.environment()
    assert [mount["mountPath"] for mount in release.predictor()["volumeMounts"]] == ["/tmp"]
    assert "initContainers" not in release.pod()


def test_a_volume_is_mounted_read_only_with_the_folder_asked_for():
    values = {"models": {"from": "volume", "volume": {"existingClaim": "c", "subPath": "models"}}}
    release = render(values)
    mount = {"name": "models", "mountPath": "/models", "readOnly": True, "subPath": "models"}
    assert mount in release.predictor()["volumeMounts"]
    assert {"name": "models", "persistentVolumeClaim": {"claimName": "c"}} in release.pod()["volumes"]
    assert release.environment()["MUELLE_MODELS"] == "/models"
    assert "initContainers" not in release.pod()


def test_bundles_are_fetched_before_the_server_starts_by_the_same_image_into_a_bounded_folder():
    release = render(FETCH, {"models": {"fetch": {"sizeLimit": "3Gi"}}})
    fetch = release.fetcher()
    assert fetch["image"] == release.predictor()["image"]
    assert fetch["args"] == ["fetch", "--to", "/models"]
    assert environment(fetch)["MUELLE_FETCH"] == f"s3://b/iris/1 {DIGEST}"
    assert {"name": "models", "emptyDir": {"sizeLimit": "3Gi"}} in release.pod()["volumes"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in release.predictor()["volumeMounts"]
    assert {"name": "models", "mountPath": "/models"} in fetch["volumeMounts"]


def test_only_the_fetching_container_gets_the_stores_credentials():
    more = {"models": {"fetch": {"existingSecret": "s3", "env": [{"name": "AWS_REGION", "value": "x"}]}}}
    release = render(FETCH, more)
    assert release.fetcher()["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert environment(release.fetcher())["AWS_REGION"] == "x"
    assert "envFrom" not in release.predictor()
    assert "AWS_REGION" not in release.environment()


def test_several_bundles_are_one_a_line():
    bundles = [{"url": f"https://h/{i}", "digest": DIGEST} for i in (1, 2)]
    release = render(FETCH, {"models": {"fetch": {"bundles": bundles}}})
    lines = environment(release.fetcher())["MUELLE_FETCH"].splitlines()
    assert lines == [f"https://h/1 {DIGEST}", f"https://h/2 {DIGEST}"]


def test_a_slot_may_fetch_something_else():
    other = {"slots": {"b": {"fetch": [{"url": "oci://r/iris:2", "digest": DIGEST}]}}}
    release = render(FETCH, other)
    assert environment(release.fetcher("a"))["MUELLE_FETCH"].startswith("s3://")
    assert environment(release.fetcher("b"))["MUELLE_FETCH"] == f"oci://r/iris:2 {DIGEST}"


def test_plain_http_is_fetched_only_when_that_is_said():
    assert "--insecure" not in render(FETCH).fetcher()["args"]
    assert render(FETCH, {"models": {"fetch": {"insecureHttp": True}}}).fetcher()["args"][-1] == "--insecure"


def test_why_fetching_failed_is_the_pods_termination_message():
    assert render(FETCH).fetcher()["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_what_is_served_is_always_said_since_the_commands_own_that_variable():
    assert render().environment()["MUELLE_SERVE"] == ""
    assert render({"models": {"serve": ["iris@2", "linear"]}}).environment()["MUELLE_SERVE"] == "iris@2,linear"


def test_a_slots_own_models_go_before_the_common_ones():
    release = render({"models": {"serve": ["iris@1"]}, "slots": {"b": {"serve": ["iris@2"]}}})
    assert release.environment("a")["MUELLE_SERVE"] == "iris@1"
    assert release.environment("b")["MUELLE_SERVE"] == "iris@2"


def test_the_default_model_is_passed_on():
    assert "MUELLE_DEFAULT_MODEL" not in render().environment()
    assert render({"models": {"default": "iris"}}).environment()["MUELLE_DEFAULT_MODEL"] == "iris"


@pytest.mark.parametrize("values", [{}, FETCH], ids=["image", "fetch"])
def test_the_commands_find_out_where_models_come_from(values):
    front = render(values).front()
    wanted = merged({"models": {"from": "image"}}, values)["models"]["from"]
    assert front["metadata"]["annotations"]["muelle.io/models-from"] == wanted
