"""``skaffold.yaml`` against what it names: the chart's values, the Dockerfile's files, the dev command.

The real skaffold runs in ``tests/e2e/test_skaffold.py``, where there is one.
"""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

import pytest
import yaml
from rendering import CHART, ROOT, Object, environment, render

from muelle.cli.dev import dev

CONFIG: Object = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
PROFILES: dict[str, Object] = {profile["name"]: profile for profile in CONFIG["profiles"]}
VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())
DEV_VALUES = ROOT / "tools" / "skaffold" / "dev-values.yaml"
CODE = ("muelle", "service", "training")
WAYS = ("service", "replicas", "gateway")
#: Every set of profiles that makes sense: one way, with a builder, under `skaffold dev` or not.
COMBINATIONS = [
    [*names, way]
    for way, names in itertools.product(WAYS, [[], ["dev"], ["buildah"], ["dev", "buildah"], ["buildah", "dev"]])
]


def with_profiles(names: list[str]) -> Object:
    """Return the configuration as skaffold has it with these profiles: their JSON patches applied in order."""
    config = copy.deepcopy(CONFIG)
    for name in names:
        for patch in PROFILES[name]["patches"]:
            *way, last = [step.replace("~1", "/").replace("~0", "~") for step in patch["path"].split("/")[1:]]
            node: Any = config
            for step in way:
                node = node[int(step)] if isinstance(node, list) else node[step]
            if patch["op"] == "remove":
                del node[last]
                continue
            assert patch["op"] == "add" or last in node, f"{name}: nothing to replace at {patch['path']}"
            node[last] = copy.deepcopy(patch["value"])
    return config


def release(config: Object) -> Object:
    (found,) = config["deploy"]["helm"]["releases"]
    return found


def values(config: Object) -> Object:
    """Return the chart's values as helm gets them, images as skaffold names them."""
    settings = {**release(config)["setValues"], **release(config)["setValueTemplates"]}
    filled = {
        "image.repository": "localhost:5000/muelle",
        "image.tag": "git-0123456@sha256:" + "0" * 64,
        "traffic.gateway.parentRefs[0].name": "local",
        "traffic.gateway.parentRefs[0].namespace": "gateways",
    }
    result: Object = {}
    for path, text in settings.items():
        *way, last = path.replace("[0]", ".0").split(".")
        node = result
        for step in way:
            node = node.setdefault(step, {})
        value = filled.get(path, text)
        assert "{{" not in value, path
        node[last] = int(value) if value.isdecimal() else value
    references = result.get("traffic", {}).get("gateway", {}).pop("parentRefs", None)
    if references:
        result["traffic"]["gateway"]["parentRefs"] = [references["0"]]
    return result


def rendered(names: list[str]) -> Any:
    config = with_profiles(names)
    files = [ROOT / file for file in release(config).get("valuesFiles", [])]
    # `--set` goes before a file, whatever their order.
    return render(*files, values(config), release=release(config)["name"])


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_the_chart_accepts_what_skaffold_sets(names):
    release_ = rendered(names)
    assert release_.one("Service", "muelle")["metadata"]["annotations"]["muelle.io/backend"] == names[-1]
    tag = "localhost:5000/muelle:git-0123456@sha256:" + "0" * 64
    assert release_.pods()["muelle-a"]["containers"][0]["image"] == tag


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_every_value_that_is_set_is_one_of_the_charts(names):
    one = release(with_profiles(names))
    for path in {**one["setValues"], **one["setValueTemplates"]}:
        node: Any = VALUES
        for step in path.partition("[")[0].split("."):
            assert step in node, path
            node = node[step]


def test_the_forwarded_service_is_there():
    (forward,) = CONFIG["portForward"]
    assert forward["resourceType"] == "service"
    service = rendered(["service"]).one("Service", forward["resourceName"])
    assert forward["port"] in [port["port"] for port in service["spec"]["ports"]]


def test_dev_is_for_skaffold_dev_alone():
    assert PROFILES["dev"]["activation"] == [{"command": "dev"}]
    assert [name for name, profile in PROFILES.items() if "activation" in profile] == ["dev"]
    assert "sync" not in CONFIG["build"]["artifacts"][0]


def test_every_module_is_synced_to_where_the_dev_command_runs_it():
    rules = with_profiles(["dev"])["build"]["artifacts"][0]["sync"]["manual"]
    assert {rule["src"] for rule in rules} == {f"{package}/**/*.py" for package in CODE}
    for rule in rules:
        assert list(ROOT.glob(rule["src"]))
    pod = rendered(["dev", "service"]).pods()["muelle-a"]
    (container,) = pod["containers"]
    template = rendered(["dev", "service"]).one("Deployment", "muelle-a")["spec"]["template"]
    (source,) = re.findall(r"muelle dev --source (\S+)$", command_of(template))
    assert {rule["dest"] for rule in rules} == {source}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert not mounts["/tmp"].get("readOnly")
    assert source.startswith("/tmp/")
    assert "--source" in {option for parameter in dev.params for option in parameter.opts}


def command_of(template: Object) -> str:
    """Return the `muelle` that a pod of `skaffold dev` finds first."""
    (volume,) = [volume for volume in template["spec"]["volumes"] if "downwardAPI" in volume]
    (item,) = volume["downwardAPI"]["items"]
    (key,) = re.findall(r"^metadata\.annotations\['(.+)'\]$", item["fieldRef"]["fieldPath"])
    assert item["path"] == "muelle"
    return str(template["metadata"]["annotations"][key]).strip()


def test_the_dev_command_goes_before_the_images_own():
    dockerfile = (ROOT / "Dockerfile").read_text()
    (own,) = re.findall(r"^ENV PATH=(\S+):\$PATH", dockerfile, re.MULTILINE)
    pod = rendered(["dev", "service"]).pods()["muelle-a"]
    (container,) = pod["containers"]
    (volume,) = [volume["name"] for volume in pod["volumes"] if "downwardAPI" in volume]
    (folder,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == volume]
    assert environment(container)["PATH"].split(":")[:2] == [folder, own]
    template = rendered(["dev", "service"]).one("Deployment", "muelle-a")["spec"]["template"]
    assert f"exec {own}/muelle dev" in command_of(template)


def test_the_root_file_system_stays_read_only_under_dev():
    (container,) = rendered(["dev", "service"]).pods()["muelle-a"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("names", [["buildah"], ["dev", "buildah"], ["buildah", "dev"]], ids="+".join)
def test_buildah_watches_what_the_build_context_has(names):
    config = with_profiles(names)
    (artifact,) = config["build"]["artifacts"]
    assert "docker" not in artifact
    assert config["build"]["local"] == {"push": True}
    watched = artifact["custom"]["dependencies"]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    context = {line[1:] for line in lines if line.startswith("!")}
    paths = {path for path in watched["paths"] if path not in ("Dockerfile", ".dockerignore")}
    assert paths - {"requirements"} == {path for path in context if not path.startswith("requirements/")}
    ignored = {path for path in watched["ignore"] if path.startswith("requirements/")}
    locks = {f"requirements/{path.name}" for path in (ROOT / "requirements").iterdir()}
    assert locks - ignored == {path for path in context if path.startswith("requirements/")}


def test_the_builders_make_the_image_that_production_runs():
    (artifact,) = CONFIG["build"]["artifacts"]
    assert artifact["docker"]["target"] == "muelle"
    assert re.search(r"^FROM \S+ AS muelle$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    (custom,) = with_profiles(["buildah"])["build"]["artifacts"]
    assert custom["custom"]["buildCommand"].endswith("python3 -m tools.skaffold_build")
