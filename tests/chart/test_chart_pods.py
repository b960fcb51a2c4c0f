"""What is in the pods: rights, probes, times, settings, and what users add."""

import pytest
from rendering import DIGEST, EXAMPLES, GATEWAY, refusal, render

FETCH = {"models": {"from": "fetch", "fetch": {"bundles": [{"url": "s3://b/iris/1", "digest": DIGEST}]}}}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_pod_keeps_to_restricted_pod_security_and_a_read_only_root(example):
    for name, pod in render(example).pods().items():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 65532, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for one in [*pod.get("initContainers", []), *pod["containers"]]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, (name, one["name"])
            assert "/tmp" in {mount["mountPath"] for mount in one["volumeMounts"]}, (name, one["name"])
            assert {"requests", "limits"} <= one["resources"].keys(), (name, one["name"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_no_pod_has_a_token_or_links_that_look_like_settings(example):
    release = render(example)
    for pod in release.pods().values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    for account in release.of("ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def test_cpu_has_no_limit_and_memory_has_one():
    resources = render().predictor()["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


@pytest.mark.parametrize(("request_seconds", "pre_stop"), [(30, 10), (1, 0), (300, 30)])
def test_times_follow_from_one_another(request_seconds, pre_stop):
    release = render({"timeouts": {"requestSeconds": request_seconds, "preStopSeconds": pre_stop}})
    variables = release.environment()
    graceful = int(variables["MUELLE_GRACEFUL_TIMEOUT_SECONDS"])
    assert int(variables["MUELLE_REQUEST_TIMEOUT_SECONDS"]) == request_seconds
    assert graceful >= request_seconds
    assert release.pod()["terminationGracePeriodSeconds"] == pre_stop + graceful + 5
    sleep = release.predictor().get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert sleep == pre_stop


def test_the_times_cannot_be_set_a_second_time():
    for key in ("gracefulTimeoutSeconds", "requestTimeoutSeconds"):
        assert f"additional properties '{key}' not allowed" in refusal({"settings": {key: 5}})
    message = refusal({"extraEnv": [{"name": "MUELLE_GRACEFUL_TIMEOUT_SECONDS", "value": "1"}]})
    assert "extraEnv has MUELLE_GRACEFUL_TIMEOUT_SECONDS" in message


def test_a_model_that_cannot_be_loaded_leaves_the_pod_unready_and_does_not_restart_it():
    predictor = render().predictor()
    assert predictor["readinessProbe"]["httpGet"]["path"] == "/readyz"
    for probe in ("startupProbe", "livenessProbe"):
        assert predictor[probe]["httpGet"]["path"] == "/livez"


def test_the_process_may_take_as_long_to_start_as_is_said():
    probe = render({"timeouts": {"startupSeconds": 300}}).predictor()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 300


def test_settings_become_variables_and_large_numbers_stay_numbers():
    settings = {"maxBodyBytes": 16777216000, "accessLog": False, "logLevel": "debug", "maxRows": 5}
    variables = render({"settings": settings}).environment()
    assert (
        variables.items()
        >= {
            "MUELLE_MAX_BODY_BYTES": "16777216000",
            "MUELLE_ACCESS_LOG": "false",
            "MUELLE_LOG_LEVEL": "debug",
            "MUELLE_MAX_ROWS": "5",
        }.items()
    )


def test_a_changed_setting_rolls_the_pods_and_nothing_else_about_them():
    plain, changed = (render(values).deployment()["spec"]["template"] for values in ({}, {"settings": {"maxRows": 5}}))
    assert plain != changed
    changed["spec"]["containers"][0]["env"].remove({"name": "MUELLE_MAX_ROWS", "value": "5"})
    assert plain == changed


def test_api_keys_are_mounted_as_a_folder_so_that_a_changed_secret_arrives():
    release = render({"auth": {"existingSecret": "keys", "key": "file"}})
    assert release.environment()["MUELLE_API_KEYS_FILE"] == "/etc/muelle/api-keys/file"
    (mount,) = [mount for mount in release.predictor()["volumeMounts"] if mount["name"] == "api-keys"]
    assert mount == {"name": "api-keys", "mountPath": "/etc/muelle/api-keys", "readOnly": True}
    (volume,) = [volume for volume in release.pod()["volumes"] if volume["name"] == "api-keys"]
    # 0444: whatever uid the platform gives the pod must be able to read it.
    items = [{"key": "file", "path": "file"}]
    assert volume["secret"] == {"secretName": "keys", "items": items, "defaultMode": 0o444}
    assert "MUELLE_API_KEYS_FILE" not in render().environment()


def test_what_users_add_arrives_in_the_pods():
    more = {
        "extraEnv": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "extraEnvFrom": [{"configMapRef": {"name": "c"}}],
        "extraVolumes": [{"name": "v", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "podAnnotations": {"x": "y"},
        "podLabels": {"team": "ml"},
        "nodeSelector": {"n": "s"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
    }
    release = render(more)
    predictor, pod = release.predictor(), release.pod()
    assert release.environment().items() >= {"A": "1"}.items()
    assert predictor["envFrom"] == more["extraEnvFrom"]
    assert {"name": "v", "mountPath": "/v"} in predictor["volumeMounts"]
    assert {"name": "v", "emptyDir": {}} in pod["volumes"]
    for key in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert pod[key] == more[key]
    meta = release.deployment()["spec"]["template"]["metadata"]
    assert meta["annotations"]["x"] == "y"
    assert meta["labels"]["team"] == "ml"
    test = release.one("Pod", "m-muelle-test")["spec"]
    assert (test["nodeSelector"], test["imagePullSecrets"]) == ({"n": "s"}, [{"name": "registry"}])


def test_a_platform_that_chooses_uids_can_have_ours_removed():
    openshift = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None}}
    context = render(openshift).pod()["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_the_service_account_may_be_somebody_elses():
    release = render({"serviceAccount": {"create": False, "name": "theirs"}})
    assert release.pod()["serviceAccountName"] == "theirs"
    assert set(release.of("ServiceAccount")) == {"m-muelle-operator"}
    annotated = render({"serviceAccount": {"annotations": {"role": "r"}}})
    assert annotated.one("ServiceAccount", "m-muelle")["metadata"]["annotations"] == {"role": "r"}


def test_helm_test_asks_the_front_service_for_a_prediction_with_the_served_image():
    pod = render(FETCH).one("Pod", "m-muelle-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (check,) = pod["spec"]["containers"]
    assert check["args"][:2] == ["check", "http://m-muelle.default"]


def test_helm_test_leaves_no_pod_behind_which_no_uninstall_would_remove():
    annotations = render().one("Pod", "m-muelle-test")["metadata"]["annotations"]
    assert {"hook-succeeded", "hook-failed"} <= set(annotations["helm.sh/hook-delete-policy"].split(","))


def test_helm_test_needs_a_key_where_callers_do():
    keys = {"auth": {"existingSecret": "keys"}}
    assert "Pod" not in render(keys).kinds()
    given = render(keys, {"tests": {"apiKey": {"existingSecret": "caller"}}})
    (check,) = given.one("Pod", "m-muelle-test")["spec"]["containers"]
    assert check["env"] == [
        {"name": "MUELLE_API_KEY", "valueFrom": {"secretKeyRef": {"name": "caller", "key": "api-key"}}}
    ]


def test_both_slots_pods_differ_in_nothing_but_their_slot():
    release = render(GATEWAY)
    a, b = release.pod("a"), release.pod("b")
    a["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]["muelle.io/slot"] = "b"
    assert a == b
