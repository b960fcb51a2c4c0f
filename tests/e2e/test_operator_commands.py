"""The operators' commands on the cluster: what they are allowed, what a kill leaves, and whose fields are whose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from api_recorder import recording, rights_of, write_config
from cluster import Kube, until
from images import ROOT
from release import GATEWAY, Release

Install = Callable[..., Release]
Lossless = Callable[..., None]
Report = Callable[[object], None]

COMMAND = [sys.executable, "-m", "muelle.cli"]
#: Is killed when the record says that slot a is empty, and nothing was done about it yet: too short a moment to be met
#: from outside.
EMPTYING = """
import os, signal
from muelle.cli import main
from muelle.rollout.reconcile import Reconciler
bring = Reconciler.bring
def bring_or_die(self, record, **how):
    if record.replicas.get("a") == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return bring(self, record, **how)
Reconciler.bring = bring_or_die
main()
"""


@pytest.fixture(scope="module")
def release(install: Install) -> Release:
    """Two pods serve iris@1; the selector moves traffic."""
    return install("ops")


@pytest.fixture(scope="module")
def routed(install: Install, gateway: None, namespace: str) -> Release:
    """One pod serves iris@1 behind the gateway."""
    parent, _, name = GATEWAY.partition("/")
    attached = {"parentRefs": [{"name": name, "namespace": parent}], "hostnames": [f"routed.{namespace}.e2e"]}
    return install("routed", {"replicas": 1, "traffic": {"backend": "gateway", "gateway": attached}})


def environ(config: Path | None = None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
    return kept | ({"KUBECONFIG": str(config)} if config is not None else {})


def run(*args: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], capture_output=True, text=True, timeout=240, check=False, cwd=ROOT, env=environ(config)
    )


def start(release: Release, *args: str, command: Sequence[str] = COMMAND) -> subprocess.Popen[str]:
    where = ["--release", release.name, "--namespace", release.namespace]
    return subprocess.Popen(
        [*command, *args, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environ(),
    )


def interrupted(release: Release, how: signal.Signals, at: str, *args: str) -> tuple[int, str]:
    """Run a command until it says something, then send it a signal; its exit code and what it said."""
    with start(release, *args) as process:
        giving_up = threading.Timer(200, process.kill)
        giving_up.start()
        said = ""
        for line in process.stderr or ():
            said += line
            if at in line:
                process.send_signal(how)
                break
        rest = process.communicate()[1]
        giving_up.cancel()
    assert at in said, said
    return process.returncode, said + rest


def record(release: Release) -> Any:
    return json.loads(
        release.kube.get("configmap", f"{release.fullname}-rollout", release.namespace)["data"]["record.json"]
    )


def test_the_operators_role_is_all_that_the_commands_use(
    routed: Release, kube: Kube, tmp_path: Path, report: Report
) -> None:
    operator = f"{routed.fullname}-operator"
    token = kube.run("create", "token", operator, "-n", routed.namespace, "--duration=20m").strip()
    story: list[tuple[str, ...]] = [
        ("status", "--release", routed.name),
        ("deploy", "iris@2"),
        ("traffic", "20", "--header", "X-Muelle-Slot=candidate", "--mirror", "10"),
        ("promote", "--drain-seconds", "1"),
        ("rollback", "--drain-seconds", "1"),
        ("status", "--output", "json"),
    ]
    with recording(kube, tmp_path, token, routed.namespace) as recorder:
        for args in story:
            # Other tests' releases may be in the namespace.
            named = args if "--release" in args else (*args, "--release", routed.name)
            done = run(*named, config=recorder.config)
            assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    shown = json.loads(done.stdout)
    assert shown["slots"][0]["models"][0]["digest"].startswith("sha256:"), "the pods themselves were asked"
    granted = rights_of(kube.get("role", operator, routed.namespace))
    report(f"{len(recorder.used)} rights used, {len(granted)} granted")
    assert recorder.used == granted


def test_the_operators_role_reaches_nothing_else(routed: Release, kube: Kube, report: Report) -> None:
    operator = f"{routed.fullname}-operator"
    who = f"--as=system:serviceaccount:{routed.namespace}:{operator}"
    table = kube.run("auth", "can-i", "--list", "--no-headers", who, "-n", routed.namespace)
    # What every account may: ask about itself, and read what the API server is able to.
    listed = {line.split()[0] for line in table.splitlines() if line.strip() and not line.startswith(" ")}
    own = {name for name in listed if not name.startswith(("self", "["))}
    report(sorted(own))
    resources = {
        f"{resource}.{group}" if group else resource
        for group, resource, _, _ in rights_of(kube.get("role", operator, routed.namespace))
    }
    assert own == resources
    for verb, what, where in [
        ("get", "secrets", routed.namespace),
        ("delete", "deployments.apps", routed.namespace),
        ("create", "pods", routed.namespace),
        ("create", "pods/exec", routed.namespace),
        ("patch", "deployments.apps/another", routed.namespace),
        ("get", "configmaps/another", routed.namespace),
        ("list", "pods", "default"),
        ("get", "pods/proxy", "default"),
    ]:
        answer = kube.run("auth", "can-i", verb, what, who, "-n", where, check=False).strip()
        assert answer == "no", f"{verb} {what} in {where}: {answer}"


def test_without_the_role_a_command_says_what_it_may_not(release: Release, kube: Kube, tmp_path: Path) -> None:
    token = kube.run("create", "token", "default", "-n", release.namespace).strip()
    with recording(kube, tmp_path, token, release.namespace) as recorder:
        done = run("status", config=recorder.config)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: not allowed to list Services in namespace {release.namespace}: services is")
    assert "operator.create=true" in done.stderr


def test_no_way_to_a_cluster_is_one_sentence(tmp_path: Path, release: Release) -> None:
    config = tmp_path / "config"
    write_config(config, "http://127.0.0.1:1", "none", "default")
    done = run("status", config=config)
    assert done.returncode == 1
    assert "can't be reached" in done.stderr
    assert "http://127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run("status", "--context", "elsewhere", config=config)
    assert "no context 'elsewhere' in the kube config; there is operator" in done.stderr
    done = run("status", config=tmp_path / "nothing")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "Set KUBECONFIG" in done.stderr


def test_a_release_must_be_named_when_there_are_several(release: Release, routed: Release) -> None:
    done = run("status", "--namespace", release.namespace)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("name one with --release: ops, routed")
    done = run("status", "--namespace", release.namespace, "--release", "else")
    assert "no release 'else' of Muelle" in done.stderr


@pytest.mark.parametrize("at", ["slot b becomes the stable one", "waiting", "emptying"])
def test_a_killed_promotion_is_finished_by_repeating_it(release: Release, at: str, lossless: Lossless) -> None:
    release.muelle("rollback", "--drain-seconds", "1", check=False)
    assert release.status()["stable"] == "a"
    release.muelle("deploy", "iris@2")
    candidates = release.uids("b")
    with release.load() as load:
        promote = ("promote", "--drain-seconds", "5")
        if at == "emptying":
            with start(release, *promote, command=[sys.executable, "-c", EMPTYING]) as process:
                process.communicate(timeout=200)
            code = process.returncode
            assert record(release)["replicas"] == {"a": 0}
            assert release.uids("a")
        else:
            code, _ = interrupted(release, signal.SIGKILL, at, *promote)
        assert code == -signal.SIGKILL
        load.wait(sent=100)
        release.muelle("promote", "--drain-seconds", "5")
        load.wait_version("2", 50)
        release.wait_settled()
    assert release.uids("b") == candidates
    assert release.restarts("b") == 0
    assert {slot["slot"]: slot["wanted"] for slot in release.status()["slots"]} == {"a": 0, "b": 2}
    lossless(load)
    release.muelle("rollback", "--drain-seconds", "1")


def test_a_killed_deploy_is_finished_by_repeating_it(release: Release, lossless: Lossless) -> None:
    release.muelle("rollback", "--drain-seconds", "1", check=False)
    with release.load(versions=["1"]) as load:
        interrupted(release, signal.SIGKILL, "putting iris@2", "deploy", "iris@2")
        release.muelle("deploy", "iris@2")
        load.wait(sent=50)
    assert len(release.pods("b", ready=True)) == 2
    lossless(load)


def test_ctrl_c_says_what_it_leaves_and_the_command_can_be_repeated(release: Release) -> None:
    release.muelle("deploy", "iris@2")
    code, said = interrupted(release, signal.SIGINT, "waiting", "promote", "--drain-seconds", "20")
    assert code == 130
    assert "repeat the command to finish" in said
    assert "Traceback" not in said
    release.muelle("promote", "--drain-seconds", "1")
    assert record(release)["replicas"] == {"a": 0}
    release.muelle("rollback", "--drain-seconds", "1")


def test_helm_has_back_what_the_record_no_longer_speaks_of(release: Release, lossless: Lossless) -> None:
    release.muelle("deploy", "iris@2", "--image", release.images.e2e_2)
    assert image(release, "b") == release.images.e2e_2
    with release.load() as load:
        release.upgrade({"settings": {"maxRows": 2000}})
        assert image(release, "b") == release.images.e2e_2, "what the record says, helm leaves"
        release.muelle("promote", "--drain-seconds", "2")
        promoted = release.uids("b")
        release.upgrade()
        assert release.uids("b") == promoted, "an upgrade that changes nothing starts nothing anew"
        release.upgrade({"replicas": 3})
        release.wait_ready("b", 3)
        assert promoted <= release.uids("b")
        release.muelle("rollback", "--drain-seconds", "2")
        release.wait_settled()
    lossless(load)
    assert image(release, "b") == image(release, "a")
    release.upgrade({"replicas": 2, "image": {"tag": release.images.e2e_2.partition(":")[2]}})
    release.wait_ready("a", 2)
    assert image(release, "a") == release.images.e2e_2
    assert image(release, "b") == release.images.e2e_2, "given back, so that helm may change it"
    release.upgrade({"image": {"tag": "e2e"}})


def image(release: Release, slot: str) -> str:
    containers = release.deployment(slot)["spec"]["template"]["spec"]["containers"]
    return str(next(item["image"] for item in containers if item["name"] == "predictor"))


def test_the_record_goes_with_the_release(install: Install, kube: Kube) -> None:
    brief = install("brief", {"replicas": 1})
    brief.muelle("deploy", "iris@2")
    brief.uninstall()
    until(lambda: not kube.exists("configmap", f"{brief.fullname}-rollout", brief.namespace), "no record", 60)


@pytest.fixture
def scaled(install: Install, cpu_figures: None) -> Iterator[Release]:
    """A release with an autoscaler, of which a slot holds at least one pod.

    The numbers are its own, but it changes none by itself: the test plays its part, and start-up takes CPU.
    """
    still = {way: {"selectPolicy": "Disabled"} for way in ("scaleUp", "scaleDown")}
    values: Mapping[str, Any] = {
        "autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 3, "behavior": still}
    }
    found = install("scaled", values)
    yield found
    found.uninstall()


def test_an_autoscalers_numbers_are_left_alone(scaled: Release, kube: Kube) -> None:
    kube.run("scale", "deployment", f"{scaled.fullname}-a", "--replicas=2", "-n", scaled.namespace)
    scaled.wait_ready("a", 2)
    scaled.muelle("deploy", "iris@2")
    assert len(scaled.pods("b", ready=True)) == 2, "as many as the load needs in the other slot"
    managers = kube.run(
        "get", "deployment", f"{scaled.fullname}-b", "-n", scaled.namespace, "-o", "json", "--show-managed-fields"
    )
    ours = [entry for entry in json.loads(managers)["metadata"]["managedFields"] if entry["manager"] == "muelle"]
    assert "f:replicas" not in json.dumps(ours)
    scaled.muelle("promote", "--drain-seconds", "1")
    assert scaled.deployment("a")["spec"]["replicas"] == 0
    assert record(scaled)["replicas"] == {"a": 0}
    scaled.muelle("rollback", "--drain-seconds", "1")
    assert scaled.deployment("b")["spec"]["replicas"] == 0


def test_watching_shows_changes_until_it_is_ended(release: Release) -> None:
    release.muelle("rollback", "--drain-seconds", "1", check=False)
    with start(release, "status", "--watch", "--output", "json", "--every", "0.5") as process:
        giving_up = threading.Timer(300, process.kill)
        giving_up.start()
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["candidate"] is None
        release.muelle("deploy", "iris@2")
        later = first
        while later["candidate"] is None or later["slots"][1]["ready"] < 2:
            later = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate()
        giving_up.cancel()
    assert process.returncode == 130
    release.muelle("rollback", "--drain-seconds", "1")


def test_a_gateway_that_is_not_there_is_named(routed: Release, kube: Kube) -> None:
    route = ["httproute", routed.fullname, "-n", routed.namespace]
    parents = kube.get("httproute", routed.fullname, routed.namespace)["spec"]["parentRefs"]
    routed.muelle("deploy", "iris@2")
    kube.run("patch", *route, "--type=merge", "-p", json.dumps({"spec": {"parentRefs": [{"name": "nowhere"}]}}))
    done = routed.muelle("traffic", "10", "--timeout", "10", check=False)
    assert done.returncode == 1
    assert "HTTPRoute routed-muelle is not ready after 10 s: gateway nowhere has not taken it up" in done.stderr
    kube.run("patch", *route, "--type=merge", "-p", json.dumps({"spec": {"parentRefs": parents}}))
    routed.muelle("traffic", "10")
    routed.muelle("rollback", "--drain-seconds", "1")
