"""The model card: it says what the manifest says, and no value breaks its tables."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from muelle.bundle.card import render_card
from muelle.bundle.manifest import Manifest, OnnxReport
from muelle.bundle.profile import build_profile
from muelle.bundle.signature import Feature, Output, Signature


def card(manifest: Manifest, description: str = "") -> str:
    data = {
        feature.name: np.array([1.0, 2.0, 30.0])
        if feature.dtype == "int64"
        else np.array(["Vigo", "Lugo", "Vigo"], object)
        for feature in manifest.signature.inputs
    }
    profile = build_profile(manifest.signature, data, np.array(["no", "yes", "no"], object))
    return render_card(manifest, profile, description)


def test_it_says_what_the_manifest_says(manifest):
    text = card(manifest, "Who leaves?\n")
    assert text.startswith("# churn 1.2\n\nWho leaves?\n\n| | |\n|---|---|\n| Estimator | `Pipeline(")
    for line in [
        "| Task | classification |",
        "| Code | `abc-dirty` |",
        "| Training data | `sha256:00` |",
        "| Engines | onnx, joblib |",
        "| ONNX | agrees |",
        "| Reference rows | 3 |",
        "| accuracy | 0.75 |",
        "| age | int64 | yes | 1 … 2 … 30 |",
        "| city | string | no | Vigo, Lugo |",
        "| predict | string | [-1] | no, yes |",
        "| predict_proba | float64 | [-1, 2] | no, yes |",
        "| solver | lbfgs |",
        "| shuffle | True |",
        "python 3.12.1, numpy 2.1.0",
    ]:
        assert line in text.splitlines()
    assert text.endswith("\n")


def test_what_is_not_there_is_left_out_or_said(manifest):
    bare = dataclasses.replace(manifest, scores={}, parameters={}, git_commit=None, data_digest=None)
    text = card(bare)
    assert "## Scores" not in text
    assert "## Training parameters" not in text
    assert text.count("not recorded") == 2
    assert text.startswith("# churn 1.2\n\n| | |\n")


NASTY = "a|b\n# c | d"


def test_pipes_and_line_ends_stay_in_their_cell(manifest):
    signature = Signature("frame", (Feature(NASTY, "string"),), (Output("predict", "string", (-1,), (NASTY, "x")),))
    nasty = dataclasses.replace(
        manifest,
        signature=signature,
        estimator="A|B",
        onnx=OnnxReport(False, f"can't be converted: {NASTY}"),
        scores={NASTY: 1.0},
        parameters={NASTY: NASTY},
    )
    tables = [line for line in card(nasty).splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in tables]
    facts, scores, inputs, outputs, parameters = 10, 3, 3, 3, 3
    assert widths == [2] * facts + [2] * scores + [4] * inputs + [4] * outputs + [2] * parameters
    assert [line for line in card(nasty).splitlines() if line.startswith("#")] == [
        "# churn 1.2", "## Scores", "## Inputs", "## Outputs", "## Training parameters", "## Libraries",
    ]  # fmt: skip


@pytest.mark.parametrize("values", [[np.nan, np.nan], [np.inf, np.nan]])
def test_a_column_without_finite_values(manifest, values):
    signature = Signature("frame", (Feature("empty", "float64", True),), (Output("predict", "float64", (-1,)),))
    profile = build_profile(signature, {"empty": np.array(values)}, np.zeros(2))
    text = render_card(dataclasses.replace(manifest, signature=signature), profile, "")
    assert "| empty | float64 | yes |  |" in text


def test_many_classes_and_values_are_cut(manifest):
    output = Output("predict", "int64", (-1,), tuple(range(1000)))
    text = card(dataclasses.replace(manifest, signature=dataclasses.replace(manifest.signature, outputs=(output,))))
    assert "18, 19 |" in text
    assert "20" not in [cell.strip() for cell in text.split(",")]
