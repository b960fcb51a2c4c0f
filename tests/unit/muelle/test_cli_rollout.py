"""``muelle deploy``, ``traffic``, ``promote``, ``rollback``, ``status`` on a cluster in memory."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from fake_cluster import FakeCluster

from muelle.cli import main
from muelle.cli.operations import Surroundings

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def cluster():
    return FakeCluster("gateway")


@pytest.fixture
def muelle(cluster):
    def run(*arguments, on=cluster):
        words = [str(word) for word in arguments]
        result = CliRunner().invoke(main, words, obj=Surroundings(on, on.clock))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_the_way_of_a_version(muelle, cluster):
    assert muelle("deploy", "iris@2").exit_code == 0
    assert muelle("traffic", "10").exit_code == 0
    table = muelle("status").stdout
    assert "m in namespace ns, backend gateway" in table
    rows = [line.split() for line in table.splitlines()]
    assert ["a", "stable", "iris@1", "-", "4/4", "90", "%", "-"] in rows
    assert any(row[:7] == ["b", "candidate", "iris@2", "-", "1/1", "10", "%"] for row in rows)
    result = muelle("promote")
    assert result.exit_code == 0
    assert "slot b becomes the stable one" in result.stderr
    assert "waiting 30 s for connections to end, before slot a is emptied" in result.stderr
    assert cluster.record()["stable"] == "b"
    result = muelle("rollback", "--output", "json")
    assert json.loads(result.stdout)["stable"] == "a"


def test_progress_is_not_in_the_way_of_json(muelle):
    result = muelle("deploy", "iris@2", "--output", "json")
    assert json.loads(result.stdout)["candidate"] == "b"
    assert "putting iris@2 into slot b" in result.stderr


def test_testers_and_copies(muelle, cluster):
    muelle("deploy", "iris@2")
    result = muelle("traffic", "--header", "x-muelle-slot=candidate", "--mirror", "20")
    assert "testers' header X-Muelle-Slot: candidate; copies of 20 % to the candidate" in result.stdout
    muelle("traffic", "--no-header", "--mirror", "0")
    assert cluster.rules()[0]["backendRefs"][0]["name"] == "m-muelle-a"


@pytest.mark.parametrize("header", ["X-Other=candidate", "X-Muelle-Slot=b", "X-Muelle-Slot"])
def test_a_header_that_the_route_does_not_know_is_refused(muelle, header):
    muelle("deploy", "iris@2")
    result = muelle("traffic", "--header", header)
    assert result.exit_code == 1
    assert "knows X-Muelle-Slot=candidate, not" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["deploy"], "Missing argument"),
        (["deploy", "iris"], "expected NAME@VERSION such as iris@2, got 'iris'"),
        (["deploy", "iris@2,linear@1"], "expected NAME@VERSION"),
        (["deploy", "iris@2", "--from", "s3://models/iris/2"], "expected URL@sha256:HEX"),
        (["deploy", "iris@2", "--image", "a b"], "expected an image's reference"),
        (["deploy", "iris@2", "--replicas", "0"], "0 is not in the range x>=1"),
        (["traffic"], "expected PERCENT, --header, --no-header or --mirror"),
        (["traffic", "101"], "101 is not in the range 0<=x<=100"),
        (["traffic", "--header", "a=b", "--no-header"], "exclude each other"),
        (["promote", "--drain-seconds", "-1"], "is not in the range"),
    ],
)
def test_wrong_usage(muelle, arguments, message):
    result = muelle(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_a_command_refuses_is_one_line(muelle):
    result = muelle("traffic", "10")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: there is no candidate")
    assert len(result.stderr.splitlines()) == 1


def test_sources_go_into_the_record(muelle):
    cluster = FakeCluster("service", models_from="fetch")
    sources = ["--from", f"s3://models/iris/2@{DIGEST}", "--from", f"s3://models/linear/1@{DIGEST}"]
    assert muelle("deploy", "iris@2", "linear@1", *sources, on=cluster).exit_code == 0
    content = cluster.record()["slots"]["b"]
    assert content["serve"] == "iris@2,linear@1"
    assert content["fetch"] == f"s3://models/iris/2 {DIGEST}\ns3://models/linear/1 {DIGEST}"


def test_a_failed_deploy_says_why_and_that_nothing_else_happened(muelle):
    cluster = FakeCluster("service", models_from="fetch")
    cluster.broken["iris@2"] = '{"reasons": ["iris 2: named by MUELLE_SERVE, but not there"]}'
    result = muelle("deploy", "iris@2", on=cluster)
    assert result.exit_code == 1
    assert "iris 2: named by MUELLE_SERVE, but not there; without --from it fetches what the stable" in result.stderr
    assert result.stderr.rstrip().endswith("Slot b gets no request, and slot a is as it was")
    assert result.stdout == ""


def test_timeout_and_names_are_taken(muelle, cluster):
    cluster.seconds_to_ready = 1_000
    result = muelle("deploy", "iris@2", "--timeout", "7", "--release", "m")
    assert "is not ready after 7 s" in result.stderr
    assert "no release 'x'" in muelle("status", "-r", "x").stderr


def test_ctrl_c_says_what_it_leaves(muelle, cluster):
    muelle("deploy", "iris@2")

    def interrupt():
        if cluster.record()["stable"] == "b":
            raise KeyboardInterrupt

    cluster.after_write = interrupt
    result = muelle("promote")
    assert result.exit_code == 130
    assert "repeat the command to finish what it began" in result.stderr
    cluster.after_write = lambda: None
    assert muelle("promote").exit_code == 0
    assert cluster.replicas() == {"a": 0, "b": 4}


def test_a_repeated_promotion_that_has_nothing_left_to_do_but_repairs_is_fine(muelle, cluster):
    muelle("deploy", "iris@2")
    muelle("promote")
    cluster.rules()[1]["backendRefs"][0]["weight"] = 0
    cluster.deployment("a")["spec"]["replicas"] = 1
    result = muelle("promote")
    assert result.exit_code == 0
    assert "finished what an earlier command had begun" in result.stderr
    assert muelle("promote").exit_code == 1


def test_watching_prints_changes_only(muelle, cluster):
    seconds = []

    def pass_by():
        seconds.append(1)
        cluster.tick()
        if len(seconds) == 3:
            cluster.deployment("b")["spec"]["replicas"] = 1
        if len(seconds) == 12:
            raise KeyboardInterrupt

    cluster.clock.on_second = pass_by
    result = muelle("status", "--watch", "--output", "json", "--every", "1")
    assert result.exit_code == 130
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert [document["slots"][1]["wanted"] for document in (documents[0], documents[-1])] == [0, 1]
    assert len(documents) < 8
    assert result.stderr == ""


def test_problems_are_told_beside_the_table(muelle, cluster):
    muelle("deploy", "iris@2")
    cluster.broken["iris@2"] = '{"reasons": ["iris 2: gone"]}'
    cluster.settle()
    cluster.rules()[1]["backendRefs"][1]["weight"] = 1
    cluster.strict = False
    result = muelle("status")
    assert "slot b is not ready: 0 of 1 pods ready" in result.stderr
    assert "iris 2: gone" in result.stderr
    assert "objects were changed by hand" in result.stderr


def test_the_client_is_imported_only_to_reach_a_cluster():
    code = (
        "import sys\nfrom muelle.cli import main\n"
        "try:\n    main(['traffic', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('kubernetes' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "False"
