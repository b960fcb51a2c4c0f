"""What helm prints after an install of the monitoring chart can be typed in as it stands."""

import json
import shlex

from monitoring_chart import ALL, CHART, STANDALONE, render
from rendering import command, merged


def notes(*values):
    arguments = ("helm", "install", "m", str(CHART), "-n", "watch", "--dry-run=client", "--output", "json")
    done = command(*arguments, "--values", "-", stdin=json.dumps(merged(*values)))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["info"]["notes"]


def commands(text):
    return [line.strip() for line in text.splitlines() if line.startswith("  kubectl")]


def test_each_program_gets_a_port_forward_to_a_service_that_there_is():
    release = render(STANDALONE)
    forwards = [shlex.split(line) for line in commands(notes(STANDALONE)) if "port-forward" in line]
    assert len(forwards) == 3
    for _, _, namespace, _, target, port, _ in forwards:
        assert namespace == "watch"
        (service,) = release.one("Service", target.removeprefix("service/"))["spec"]["ports"]
        assert str(service["port"]) == port


def test_the_password_is_told_by_a_command_and_never_by_itself():
    text = notes(STANDALONE)
    (line,) = [line for line in commands(text) if "get secret" in line]
    assert shlex.split(line)[-1] == 'go-template={{index .data "admin-password" | base64decode}}'
    assert "Everybody may look" not in text
    assert "Everybody may look" in notes(ALL)


def test_what_is_missing_yet_is_said():
    assert "Nobody is told of alerts yet" in notes(STANDALONE)
    assert "Samples last as long as Prometheus' pod" in notes(STANDALONE)
    for sentence in ("Nobody is told", "Samples last"):
        assert sentence not in notes(ALL)
    assert "models, more-models" in notes(ALL)


def test_for_an_operator_the_labels_and_the_monitors_are_what_matters():
    text = notes()
    assert "release=kube-prometheus-stack" in text
    assert "Each Muelle release needs a monitor" in text
    assert "port-forward" not in text
    assert "One PodMonitor is for all" in notes({"operator": {"podMonitor": {"enabled": True}}})
    assert "Rules are there" in notes({"dashboards": {"enabled": False}})
