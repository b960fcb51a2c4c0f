"""The ONNX variant: made when the bundle is made, kept only when it agrees with the estimator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from muelle.bundle.data import Array, Data, largest_error, row_count
from muelle.bundle.engines import OnnxEngine
from muelle.bundle.fold import fold_scaling
from muelle.bundle.linear import note_linear_labels
from muelle.bundle.manifest import OnnxReport
from muelle.bundle.signature import NUMBERS, Signature

#: Probabilities and values may differ by this much, see `muelle.bundle.data.largest_error`; labels not at all.
TOLERANCE: Final = 1e-6


def convert(
    estimator: Any, signature: Signature, data: Data, answers: Mapping[str, Array]
) -> tuple[bytes | None, OnnxReport]:
    """Convert an estimator to ONNX and compare the two on held-out rows.

    float64 graphs are tried first, then float32: scikit-learn's trees compare float32 values themselves, and some
    converters know nothing else.

    Parameters
    ----------
    estimator : object
        A fitted estimator or Pipeline.
    signature : Signature
        Its inputs and outputs.
    data : Data
        Held-out rows.
    answers : mapping
        Output name to the estimator's own answers for those rows.

    Returns
    -------
    model : bytes or None
        The graph, or None when there is none that agrees.
    report : OnnxReport
        What was measured, or why there is none.
    """
    try:
        import skl2onnx  # noqa: F401  # only whether it is there
    except ImportError:
        return None, OnnxReport(kept=False, reason="skl2onnx is not installed")
    if reason := _unsuitable(estimator, signature):
        return None, OnnxReport(kept=False, reason=reason)
    report = OnnxReport(kept=False, reason="the converter offers no graph")
    for input_dtype, types in _attempts(signature):
        try:
            graphs, opset = _to_onnx(estimator, types, signature)
            for model in graphs:
                actual = OnnxEngine(model, signature).run(data, signature.output_names)
                report = _compare(signature, answers, actual, input_dtype, opset)
                if report.kept:
                    return model, report
        except Exception as error:  # noqa: BLE001  # the converter and ONNX Runtime raise what they like
            message = str(error).strip() or type(error).__name__
            if not report.rows:
                report = OnnxReport(kept=False, reason=f"can't be converted: {message.splitlines()[0][:200]}")
    return None, report


def _unsuitable(estimator: Any, signature: Signature) -> str | None:
    """Return why a conversion that succeeds would still not answer like the estimator, or None."""
    if signature.layout in ("objects", "text"):
        return "rows of text or of mixed objects are served by the estimator itself"
    if any(feature.categories for feature in signature.inputs):
        return "categorical columns are served by the estimator itself"
    if any(feature.dtype == "bool" and feature.nullable for feature in signature.inputs):
        return "missing booleans, which ONNX can't express, are served by the estimator itself"
    if _refuses_unseen(estimator):
        return "an encoder with handle_unknown='error' refuses unseen categories, its ONNX form would not"
    return None


def _refuses_unseen(estimator: Any) -> bool:
    """Whether any encoder inside, however deep, refuses categories that it never saw."""
    pending, seen = [estimator], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if getattr(value, "handle_unknown", None) == "error":
            return True
        if isinstance(value, list | tuple):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif hasattr(value, "get_params") and not isinstance(value, type):
            pending.extend(vars(value).values())
    return False


def _attempts(signature: Signature) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield the input types to try, best first, with a name for the report."""
    from skl2onnx.common.data_types import (
        BooleanTensorType,
        DoubleTensorType,
        FloatTensorType,
        Int64TensorType,
        StringTensorType,
    )

    if signature.layout == "matrix":
        shape = [None, len(signature.inputs)]
        if signature.inputs[0].dtype == "float64":
            yield "float64", [("rows", DoubleTensorType(shape))]
        yield "float32", [("rows", FloatTensorType(shape))]
        return
    # Some converters can't mix integers with other numbers, and a missing integer can only be said as a NaN.
    for number, integer in ((DoubleTensorType, Int64TensorType), (DoubleTensorType,) * 2, (FloatTensorType,) * 2):
        types = {"float64": number, "float32": number, "bool": BooleanTensorType, "string": StringTensorType}
        chosen = [
            number if feature.nullable and feature.dtype in NUMBERS else types.get(feature.dtype, integer)
            for feature in signature.inputs
        ]
        yield (
            "columns",
            [(feature.name, kind([None, 1])) for feature, kind in zip(signature.inputs, chosen, strict=True)],
        )


def _to_onnx(estimator: Any, types: list[tuple[str, Any]], signature: Signature) -> tuple[list[bytes], int]:
    """Return the graphs to compare, the faster first, and their operator set's version."""
    import skl2onnx

    # A classifier's probabilities as one array rather than a list of dictionaries.
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    # Version 3 of the ML operators is the newest that all converters handle.
    target = {"": skl2onnx.__max_supported_opset__, "ai.onnx.ml": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = skl2onnx.to_onnx(estimator, initial_types=types, options=options, target_opset=target)
    versions = {item.domain: item.version for item in model.opset_import}
    plain = model.SerializeToString()
    folded = fold_scaling(model) is not None
    noted = note_linear_labels(model, len(signature.output("predict").classes or ()))
    return [model.SerializeToString(), plain] if folded or noted else [plain], versions[""]


def _compare(
    signature: Signature, answers: Mapping[str, Array], actual: Mapping[str, Array], input_dtype: str, opset: int
) -> OnnxReport:
    rows = row_count(answers["predict"])
    label_agreement = None
    errors = []
    for output in signature.outputs:
        expected, got = answers[output.name], actual[output.name]
        if output.dtype == "float64":
            errors.append(largest_error(output, expected, got))
        else:
            equal = expected == got
            label_agreement = float(np.mean(equal if equal.ndim == 1 else equal.all(axis=1)))
    max_error = max(errors, default=None)
    kept = label_agreement in (None, 1.0) and (max_error is None or max_error <= TOLERANCE)
    measured = ", ".join(
        ([] if label_agreement is None else [f"labels agree on {label_agreement:.2%}"])
        + ([] if max_error is None else [f"largest error {max_error:.2g}"])
    )
    return OnnxReport(
        kept=kept,
        reason=f"{'agrees' if kept else 'does not agree'} with the estimator on {rows} rows: {measured}",
        rows=rows,
        label_agreement=label_agreement,
        max_error=max_error if max_error is None or np.isfinite(max_error) else None,
        input_dtype=input_dtype,
        opset=opset,
    )
