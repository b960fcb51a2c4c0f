"""From a fitted estimator to a bundle on disk."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from muelle.bundle.card import render_card
from muelle.bundle.convert import convert
from muelle.bundle.engines import load_engine
from muelle.bundle.files import publish, sha256
from muelle.bundle.golden import check_golden, make_golden
from muelle.bundle.infer import Sample, infer_outputs, make_signature
from muelle.bundle.manifest import (
    CARD,
    ENGINE_FILES,
    GOLDEN,
    MANIFEST,
    NAME,
    PROFILE,
    FileEntry,
    Manifest,
    OnnxReport,
    plain_name,
)
from muelle.bundle.profile import build_profile
from muelle.bundle.skew import running_versions
from muelle.bundle.skops_files import dump_skops
from muelle.errors import BundleExistsError, EstimatorError, ManifestError

#: How often a version chosen by us is chosen anew because another writer took it.
_ATTEMPTS: Final = 20


def save(  # noqa: PLR0913  # one call for everything; all but two have defaults and are named
    estimator: Any,
    X_sample: Any,  # noqa: N803  # scikit-learn's name for it
    *,
    name: str,
    version: str | None = None,
    repository: str | os.PathLike[str] = "models",
    X_holdout: Any = None,  # noqa: N803  # scikit-learn's name for it
    file_format: Literal["joblib", "skops"] = "joblib",
    onnx: bool = True,
    dtypes: Mapping[str, str] | None = None,
    allow_missing: bool | None = None,
    allowed_modules: tuple[str, ...] = (),
    scores: Mapping[str, float] | None = None,
    parameters: Mapping[str, str | int | float | bool] | None = None,
    data_digest: str | None = None,
    description: str = "",
) -> Path:
    """Write a fitted estimator as a bundle; nothing appears unless all of it is right.

    Parameters
    ----------
    estimator : object
        Fitted, with ``predict``: a scikit-learn estimator or Pipeline, or what behaves like one.
    X_sample : array-like of shape (n_samples, n_features), DataFrame, or sequence of str
        Reference rows, typically the training data: they give the signature and the reference profile.
    name, version : str
        Where it goes in the repository; without a version the next whole number.
    repository : path
        The folder of all models; made when missing.
    X_holdout : as X_sample, optional
        Rows to compare the ONNX variant on, and for the golden rows; X_sample when left out.
    file_format : {"joblib", "skops"}
        How the estimator itself is written.
    onnx : bool
        Whether to try an ONNX variant; it is kept only when it agrees.
    dtypes : mapping, optional
        Column name to dtype, where the sample's own is not what the service should take.
    allow_missing : bool, optional
        Whether missing values may be sent in every column; by default only where the sample has some.
    allowed_modules : tuple of str
        Modules outside scikit-learn that the estimator's classes come from.
    scores, parameters : mapping, optional
        Kept in the manifest.
    data_digest : str, optional
        ``sha256:…`` of the training data.
    description : str
        Opens the model card.

    Returns
    -------
    Path
        The bundle's folder, ``repository/name/version``.

    Raises
    ------
    EstimatorError
        When the estimator or the sample can't become a bundle.
    BundleExistsError
        When that version exists.
    BundleError
        When the file system refuses, or what was written can't be loaded again.
    """
    try:
        folder = Path(repository) / plain_name(name, "name")
        if version is not None:
            plain_name(version, "version")
    except ManifestError as error:
        raise EstimatorError(str(error)) from error
    if file_format not in ("joblib", "skops"):
        raise EstimatorError(f"file_format: expected joblib or skops, got {file_format!r}")
    recorded = {key: _score(key, value) for key, value in (scores or {}).items()}
    remembered = {key: _parameter(key, value) for key, value in (parameters or {}).items()}
    sample = Sample(estimator, X_sample, dtypes=dtypes, allow_missing=allow_missing)
    outputs, answers = infer_outputs(estimator, sample.native)
    signature = make_signature(sample, outputs)
    data = sample.data()
    profile = build_profile(signature, data, answers["predict"], answers.get("predict_proba"))
    held_data, held_answers = data, answers
    if X_holdout is not None:
        holdout = Sample(estimator, X_holdout, dtypes=dtypes, allow_missing=allow_missing)
        _same_columns(sample, holdout)
        held_data, held_answers = holdout.data(), infer_outputs(estimator, holdout.native)[1]

    model, report = None, OnnxReport(kept=False, reason="not asked for")
    if onnx:
        model, report = convert(estimator, signature, held_data, held_answers)
    contents = {ENGINE_FILES["onnx"]: model} if model is not None else {}
    contents[ENGINE_FILES[file_format]] = _dump(estimator, file_format)
    golden = make_golden(signature, held_data, held_answers)
    engines = tuple(engine for engine, file in ENGINE_FILES.items() if file in contents)
    for engine in engines:
        check_golden(signature, golden, load_engine(engine, contents[ENGINE_FILES[engine]], signature, allowed_modules))

    manifest = Manifest(
        name=name,
        version=version or "0",
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        estimator=_describe(estimator),
        task=_task(estimator),
        signature=signature,
        engines=engines,
        onnx=report,
        libraries=running_versions(),
        files={},
        scores=recorded,
        parameters=remembered,
        git_commit=git_commit(),
        data_digest=data_digest,
    )
    contents |= {PROFILE: profile.to_bytes(), GOLDEN: golden.to_bytes()}
    for _ in range(_ATTEMPTS):
        chosen = version or next_version(folder)
        final = dataclasses.replace(manifest, version=chosen)
        card = {CARD: render_card(final, profile, description).encode()}
        try:
            publish(folder / chosen, _with_manifest(final, contents | card))
        except BundleExistsError:
            if version is not None:
                raise
        else:
            return folder / chosen
    raise BundleExistsError(f"{folder}: other writers took each of {_ATTEMPTS} versions")


def next_version(folder: Path) -> str:
    """Return the whole number after the largest whole-number version in a model's folder; ``1`` for none."""
    taken = [int(path.name) for path in folder.glob("*") if NAME.fullmatch(path.name) and path.name.isdecimal()]
    return str(max(taken, default=0) + 1)


def git_commit() -> str | None:
    """Return the commit of the working directory, ``-dirty`` behind it when files have changed; None outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603


def _score(name: str, value: Any) -> float:
    """Return a score, which may be a numpy number, as JSON can hold it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EstimatorError(f"scores: {name}: expected a finite number, got {value!r}")
    return number


def _parameter(name: str, value: Any) -> str | int | float | bool:
    """Return a parameter, which may be a numpy scalar, as JSON can hold it."""
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, str | int | float | bool) or (isinstance(plain, float) and not math.isfinite(plain)):
        raise EstimatorError(f"parameters: {name}: expected a string, finite number or boolean, got {value!r}")
    return plain


def _with_manifest(manifest: Manifest, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    files = {file: FileEntry(sha256(data), len(data)) for file, data in sorted(contents.items())}
    document = dataclasses.replace(manifest, files=files).to_bytes()
    try:
        Manifest.from_bytes(document)
    except ManifestError as error:
        raise EstimatorError(f"no reader would take this manifest: {error}") from error
    return {**contents, MANIFEST: document}


def _dump(estimator: Any, file_format: str) -> bytes:
    if file_format == "skops":
        return dump_skops(estimator)
    import joblib

    buffer = io.BytesIO()
    try:
        joblib.dump(estimator, buffer)
    except Exception as error:  # pickling runs the estimator's own code
        raise EstimatorError(f"{type(estimator).__name__} can't be pickled: {error}") from error
    return buffer.getvalue()


def _same_columns(sample: Sample, holdout: Sample) -> None:
    expected = [feature.name for feature in sample.features]
    got = [feature.name for feature in holdout.features]
    if sample.layout != holdout.layout or expected != got:
        raise EstimatorError(f"X_holdout: expected the sample's columns {expected}, got {got}")


def _describe(estimator: Any) -> str:
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list):
        return f"{type(estimator).__name__}({', '.join(_describe(step) for _, step in steps)})"
    return type(estimator).__name__


def _task(estimator: Any) -> str:
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

    checks: dict[str, Any] = {
        "classification": is_classifier,
        "regression": is_regressor,
        "outlier-detection": is_outlier_detector,
        "clustering": is_clusterer,
    }
    for task, check in checks.items():
        try:
            if check(estimator):
                return task
        except Exception:  # noqa: BLE001, S112  # an estimator that is none of scikit-learn's has no tags
            continue
    return "other"
