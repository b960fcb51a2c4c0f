"""Rendering the monitoring chart with the real helm, and taking out what its programs read."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROOT, Object, Rendered, command, merged

CHART = ROOT / "charts" / "muelle-monitoring"
STANDALONE: Object = {"standalone": {"enabled": True}}
#: Everything at once that the standalone way can be asked for.
ALL: Object = {
    "scrape": {"namespaces": ["models", "more-models"], "intervalSeconds": 30},
    "standalone": {
        "enabled": True,
        "prometheus": {
            "persistence": {"enabled": True},
            "retentionSize": "6GB",
            "extraScrapeConfigs": [{"job_name": "more", "static_configs": [{"targets": ["kube-state-metrics:8080"]}]}],
        },
        "alertmanager": {
            "receiver": {"webhook_configs": [{"url": "http://chat.example/hook"}]},
            "persistence": {"enabled": True, "storageClass": "fast"},
        },
        "grafana": {"anonymous": {"enabled": True}, "persistence": {"enabled": True, "existingClaim": "mine"}},
    },
}
WAYS = {"operator": {}, "standalone": STANDALONE, "all": ALL}


@cache
def _template(values: str, flags: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return command("helm", "template", "m", str(CHART), "-n", "watch", *flags, "--values", "-", stdin=values)


def template(values: Mapping[str, Any], *flags: str) -> subprocess.CompletedProcess[str]:
    """Render values of which it isn't known whether helm takes them."""
    return _template(json.dumps(values), flags)


def render(*values: Mapping[str, Any]) -> Rendered:
    """Render the chart."""
    done = template(merged(*values))
    assert done.returncode == 0, done.stderr
    return Rendered([thing for thing in yaml.safe_load_all(done.stdout) if thing])


def refusal(*values: Mapping[str, Any], flags: tuple[str, ...] = ()) -> str:
    """Return why helm refuses the values."""
    done = template(merged(*values), *flags)
    assert done.returncode != 0, "expected helm to refuse this"
    return done.stderr


def rule_files(release: Rendered) -> dict[str, str]:
    """Return the rules as files, whichever way they are rendered."""
    if "PrometheusRule" in release.kinds():
        return {
            name.removeprefix("m-monitoring-") + ".yml": yaml.safe_dump(thing["spec"])
            for name, thing in release.of("PrometheusRule").items()
        }
    files: dict[str, str] = release.one("ConfigMap", "m-monitoring-rules")["data"]
    return files


def rules(release: Rendered) -> list[Object]:
    """Return all rules."""
    groups = [group for text in rule_files(release).values() for group in yaml.safe_load(text)["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def prometheus_config(release: Rendered) -> Any:
    """Return prometheus.yml."""
    return yaml.safe_load(release.one("ConfigMap", "m-monitoring-prometheus")["data"]["prometheus.yml"])


def alertmanager_config(release: Rendered) -> Any:
    """Return alertmanager.yml."""
    return yaml.safe_load(release.one("Secret", "m-monitoring-alertmanager")["stringData"]["alertmanager.yml"])


def pods(release: Rendered) -> dict[str, Object]:
    """Return the pods' specs by component."""
    sets = release.of("StatefulSet")
    return {name.removeprefix("m-monitoring-"): thing["spec"]["template"]["spec"] for name, thing in sets.items()}


def tool(name: str, *arguments: str | Path) -> str:
    """Run a program that comes with Prometheus, and return its output when it is content."""
    program = shutil.which(name)
    if program is None:
        pytest.fail(
            f"{name} is not on the PATH: it comes with Prometheus (Debian's package prometheus, or its archive)"
        )
    # It may take a minute of a processor, while others' requests are being timed.
    command = ["nice", "-n", "15", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
