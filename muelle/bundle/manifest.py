"""The bundle's manifest: what the model is, what made it, and the digest of each file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from muelle.bundle import fields
from muelle.bundle.signature import Signature
from muelle.errors import ManifestError

#: Raise it when an older reader would misread a newer bundle; docs/bundle-format.md says how.
FORMAT_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
PROFILE: Final = "profile.json"
GOLDEN: Final = "golden.json"
CARD: Final = "MODEL_CARD.md"
#: The engine's name is the file's ending: model.onnx, model.joblib, model.skops.
ENGINE_FILES: Final = {"onnx": "model.onnx", "joblib": "model.joblib", "skops": "model.skops"}

#: A name or version goes into paths, URLs and metric labels, so it holds no separator and starts plainly.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_KEYS: Final = (
    "format_version",
    "name",
    "version",
    "created",
    "estimator",
    "task",
    "git_commit",
    "data_digest",
    "signature",
    "engines",
    "onnx",
    "libraries",
    "scores",
    "parameters",
    "files",
)


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle: its SHA-256 as 64 hex digits and its size in bytes."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class OnnxReport:
    """What became of the ONNX variant.

    Attributes
    ----------
    kept : bool
        Whether the bundle holds model.onnx.
    reason : str
        Why it was kept or not, for a person.
    rows : int
        How many held-out rows were compared.
    label_agreement : float, optional
        The share of rows with equal labels, 0 to 1; None for values or when nothing could be compared.
    max_error : float, optional
        The largest error of values or probabilities, see `muelle.bundle.convert.largest_error`.
    input_dtype : str, optional
        What the ONNX graph takes: ``float64``, ``float32`` or ``columns``.
    opset : int, optional
        The default domain's operator set version.
    """

    kept: bool
    reason: str
    rows: int = 0
    label_agreement: float | None = None
    max_error: float | None = None
    input_dtype: str | None = None
    opset: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            "kept": self.kept,
            "reason": self.reason,
            "rows": self.rows,
            "label_agreement": self.label_agreement,
            "max_error": self.max_error,
            "input_dtype": self.input_dtype,
            "opset": self.opset,
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> OnnxReport:
        """Parse the manifest's form; raises `ManifestError` with the field's place."""
        raw = fields.mapping(value, where, tuple(cls.__dataclass_fields__))

        def number(key: str) -> float | None:
            return None if raw[key] is None else fields.number(raw[key], f"{where}.{key}")

        return cls(
            kept=fields.boolean(raw["kept"], f"{where}.kept"),
            reason=fields.text(raw["reason"], f"{where}.reason"),
            rows=fields.integer(raw["rows"], f"{where}.rows"),
            label_agreement=number("label_agreement"),
            max_error=number("max_error"),
            input_dtype=fields.optional_text(raw["input_dtype"], f"{where}.input_dtype"),
            opset=None if raw["opset"] is None else fields.integer(raw["opset"], f"{where}.opset"),
        )


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle but the files' contents.

    Attributes
    ----------
    created : str
        UTC, ISO 8601 with ``Z``.
    estimator : str
        The estimator's class, for a Pipeline its steps too: ``Pipeline(StandardScaler, LogisticRegression)``.
    task : str
        ``classification``, ``regression``, ``clustering`` or ``outlier-detection``, as scikit-learn says it.
    git_commit : str, optional
        The commit of the code that trained it, ``-dirty`` behind it when the tree had changes.
    data_digest : str, optional
        ``sha256:`` and the hex digest of the training data.
    engines : tuple of str
        What can run it, best first: ``onnx``, then ``joblib`` or ``skops``.
    libraries : mapping
        Package name to version, of the process that wrote the bundle; ``python`` too.
    scores : mapping
        Score name to value, such as ``accuracy`` or ``cv_accuracy_mean``.
    parameters : mapping
        What training wants remembered: seeds, split, hyper-parameters. Strings, numbers and booleans.
    files : mapping
        Each file's path (no folders) to its entry; the manifest itself is not among them.
    """

    name: str
    version: str
    created: str
    estimator: str
    task: str
    signature: Signature
    engines: tuple[str, ...]
    onnx: OnnxReport
    libraries: Mapping[str, str]
    files: Mapping[str, FileEntry]
    scores: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    git_commit: str | None = None
    data_digest: str | None = None

    def to_bytes(self) -> bytes:
        """Return manifest.json's bytes: the same manifest always gives the same bytes."""
        document = {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "version": self.version,
            "created": self.created,
            "estimator": self.estimator,
            "task": self.task,
            "git_commit": self.git_commit,
            "data_digest": self.data_digest,
            "signature": self.signature.to_json(),
            "engines": list(self.engines),
            "onnx": self.onnx.to_json(),
            "libraries": dict(self.libraries),
            "scores": dict(self.scores),
            "parameters": dict(self.parameters),
            "files": {
                path: {"sha256": entry.sha256, "size_bytes": entry.size_bytes} for path, entry in self.files.items()
            },
        }
        return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse and validate manifest.json field by field.

        Raises
        ------
        ManifestError
            With the field's place, what was expected and what came; a newer `format_version` says to upgrade.
        """
        document = fields.free_mapping(fields.document(data, MANIFEST), MANIFEST)
        # Before the keys: a newer format may have other ones, and "upgrade" is then the helpful answer.
        version = fields.integer(document.get("format_version"), "format_version", minimum=1)
        if version > FORMAT_VERSION:
            raise ManifestError(
                f"format_version: this Muelle reads up to {FORMAT_VERSION}, the bundle has {version}; upgrade Muelle"
            )
        raw = fields.mapping(document, MANIFEST, _KEYS)
        manifest = cls(
            name=plain_name(raw["name"], "name"),
            version=plain_name(raw["version"], "version"),
            created=fields.text(raw["created"], "created"),
            estimator=fields.text(raw["estimator"], "estimator"),
            task=fields.text(raw["task"], "task"),
            git_commit=fields.optional_text(raw["git_commit"], "git_commit"),
            data_digest=fields.optional_text(raw["data_digest"], "data_digest"),
            signature=Signature.from_json(raw["signature"]),
            engines=_engines(raw["engines"]),
            onnx=OnnxReport.from_json(raw["onnx"], "onnx"),
            libraries={
                key: fields.text(value, f"libraries.{key}")
                for key, value in fields.free_mapping(raw["libraries"], "libraries").items()
            },
            scores={
                key: fields.number(value, f"scores.{key}")
                for key, value in fields.free_mapping(raw["scores"], "scores").items()
            },
            parameters=_parameters(raw["parameters"]),
            files=_files(raw["files"]),
        )
        needed = {PROFILE, GOLDEN, CARD, *(ENGINE_FILES[engine] for engine in manifest.engines)}
        if set(manifest.files) != needed:
            raise ManifestError(f"files: expected exactly {sorted(needed)}, got {sorted(manifest.files)}")
        return manifest


def plain_name(value: object, where: str) -> str:
    """Return a model's name or version that is safe in paths, URLs and labels.

    Raises
    ------
    ManifestError
        When it is not 1 to 63 letters, digits, dots, dashes or underscores, starting with a letter or digit.
    """
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        raise ManifestError(
            f"{where}: expected 1 to 63 letters, digits, '.', '-' or '_', the first a letter or digit, got {value!r}"
        )
    return value


def _engines(value: object) -> tuple[str, ...]:
    engines = tuple(
        fields.choice(item, f"engines[{i}]", tuple(ENGINE_FILES))
        for i, item in enumerate(fields.sequence(value, "engines"))
    )
    if not engines or len(set(engines)) != len(engines):
        raise ManifestError(f"engines: expected one or more different engines, got {list(engines)}")
    return engines


def _parameters(value: object) -> dict[str, str | int | float | bool]:
    raw = fields.free_mapping(value, "parameters")
    return {key: fields.scalar(item, f"parameters.{key}") for key, item in raw.items()}


def _files(value: object) -> dict[str, FileEntry]:
    found = {}
    for path, entry in fields.free_mapping(value, "files").items():
        raw = fields.mapping(entry, f"files.{path}", ("sha256", "size_bytes"))
        digest = raw["sha256"]
        if not isinstance(digest, str) or _SHA256.fullmatch(digest) is None:
            raise ManifestError(f"files.{path}.sha256: expected 64 hex digits, got {digest!r}")
        found[path] = FileEntry(digest, fields.integer(raw["size_bytes"], f"files.{path}.size_bytes"))
    return found
