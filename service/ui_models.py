"""What the page at ``/ui`` needs once for each model: its form, and the reference that drift is measured against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import Metric

from service.openapi import example_row, may_be_shown
from service.ui_state import Document, Key, key_of, ordered

if TYPE_CHECKING:
    from muelle.inference import Predictor
    from service.models import ServedModel

#: Gauges of the reference and their names in the document.
_GAUGES: Final = {
    "muelle_feature_reference_observations": "observations",
    "muelle_feature_psi_critical": "critical",
}


def models_document(families: Iterable[Metric], models: Sequence[ServedModel]) -> Document:
    """Return what changes only with the models: what a form needs, and the reference that drift is measured against.

    Parameters
    ----------
    families, models
        As for `service.ui_state.state_document`.

    Returns
    -------
    dict
        For each ready model its ``inputs`` with an example, and for each feature that is counted: ``bins`` (what is in
        them, in words), ``ratios`` (of the reference), ``observations`` and ``critical``.
    """
    references = _references(families)
    return {
        "models": [
            _form(model, predictor)
            | {
                "references": {
                    name: reference | {"bins": [_bin_name(predictor, name, label) for label in labels]}
                    for name, (labels, reference) in references[model.name, model.version].items()
                }
            }
            for model in models
            if (predictor := model.predictor) is not None
        ]
    }


def _references(families: Iterable[Metric]) -> defaultdict[Key, dict[str, tuple[list[str], Document]]]:
    """Return each counted feature's bins in order, and its reference."""
    ratios: defaultdict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    gauges: defaultdict[tuple[str, str, str], Document] = defaultdict(dict)
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            if family.name == "muelle_feature_reference_ratio":
                ratios[(*key_of(labels), labels["feature"])][labels["bin"]] = sample.value
            elif family.name in _GAUGES:
                gauges[(*key_of(labels), labels["feature"])][_GAUGES[family.name]] = sample.value
    found: defaultdict[Key, dict[str, tuple[list[str], Document]]] = defaultdict(dict)
    for (model, version, feature), shares in ratios.items():
        order = ordered(shares)
        values = {"ratios": [shares[label] for label in order]} | gauges[model, version, feature]
        found[model, version][feature] = (order, values)
    return found


def _form(model: ServedModel, predictor: Predictor) -> Document:
    signature = predictor.signature
    return {
        "model": model.name,
        "version": model.version,
        "digest": predictor.digest,
        # Relative to the page, so that it works behind a path of a proxy's too.
        "predict": f"models/{model.name}/versions/{model.version}/predict",
        "probabilities": "predict_proba" in signature.output_names,
        "inputs": [
            {
                "name": feature.name,
                "dtype": feature.dtype,
                "nullable": feature.nullable,
                "categories": feature.categories,
                "example": example,
            }
            for feature, example in zip(signature.inputs, example_row(predictor), strict=True)
        ],
    }


def _bin_name(predictor: Predictor, name: str, label: str) -> str:
    """Return what a bin holds, in words; its label when that can't or must not be told."""
    profile = predictor.profile
    # A prediction's name goes before a feature's, as in the counters.
    column = profile.predictions.get(name) or profile.inputs.get(name)
    if not label.isdigit() or column is None:
        return label
    place = int(label)
    if column.kind == "numeric":
        return _interval([f"{edge:.4g}" for edge in column.edges], place)
    known = name in profile.predictions or any(f.name == name and f.categories for f in predictor.signature.inputs)
    return str(column.values[place]) if known or may_be_shown(column, place) else label


def _interval(edges: Sequence[str], place: int) -> str:
    if not edges:
        return "any"
    if place == 0:
        return f"≤ {edges[0]}"
    return f"> {edges[-1]}" if place == len(edges) else f"{edges[place - 1]} to {edges[place]}"
