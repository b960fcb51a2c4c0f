"""With a prediction log, the pods have a disk for its spool: /tmp is memory, and a pod that fills it is evicted."""

from __future__ import annotations

import pytest
from rendering import render


def volumes(release):
    return {volume["name"]: volume for volume in release.pod()["volumes"]}


def test_without_a_log_there_is_no_spool():
    release = render()
    assert "prediction-log" not in volumes(release)
    assert "MUELLE_PREDICTION_LOG_SPOOL" not in release.environment()


@pytest.mark.parametrize(("settings", "size"), [({}, 512 * 2**20), ({"predictionLogSpoolBytes": 10**9}, 2 * 10**9)])
def test_the_spool_has_a_volume_on_disk_of_twice_its_bound(settings, size):
    release = render({"settings": {"predictionLog": "s3://b/log", **settings}})
    assert volumes(release)["prediction-log"]["emptyDir"] == {"sizeLimit": str(size)}
    mounts = {mount["name"]: mount["mountPath"] for mount in release.predictor()["volumeMounts"]}
    variables = release.environment()
    assert variables["MUELLE_PREDICTION_LOG_SPOOL"].startswith(f"{mounts['prediction-log']}/")
    assert variables["MUELLE_PREDICTION_LOG"] == "s3://b/log"


def test_a_spool_of_ones_own_stands_alone():
    settings = {"predictionLog": "/log", "predictionLogSpool": "/mine"}
    release = render({"settings": settings})
    assert "prediction-log" not in volumes(release)
    assert release.environment()["MUELLE_PREDICTION_LOG_SPOOL"] == "/mine"
