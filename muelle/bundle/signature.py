"""What a model takes and what it answers: named inputs and outputs with dtype, shape and classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from muelle.bundle import fields
from muelle.errors import ManifestError

Layout = Literal["matrix", "frame", "objects", "text"]
Scalar = str | int | float | bool

#: How the estimator wants its rows: one numeric array, a DataFrame, an array of objects, or a 1-D array of strings.
LAYOUTS: Final = ("matrix", "frame", "objects", "text")
DTYPES: Final = ("float64", "float32", "int64", "bool", "string")
NUMBERS: Final = ("float64", "float32", "int64")


@dataclass(frozen=True)
class Feature:
    """One input column.

    Attributes
    ----------
    name : str
        The column's name; ``x0``, ``x1``, … when the sample had none.
    dtype : str
        One of `DTYPES`.
    nullable : bool
        Whether a missing value (null, NaN) may be sent.
    categories : tuple of scalars, optional
        The only values that are allowed; None when any value of the dtype is.
    """

    name: str
    dtype: str
    nullable: bool = False
    categories: tuple[Scalar, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form: one column has the shape ``[-1]``, -1 being the rows."""
        categories = None if self.categories is None else list(self.categories)
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": [-1],
            "nullable": self.nullable,
            "categories": categories,
        }

    @classmethod
    def from_json(cls, value: object, where: str) -> Feature:
        """Parse one input of the manifest; raises `ManifestError` with the field's place."""
        raw = fields.mapping(value, where, ("name", "dtype", "shape", "nullable", "categories"))
        dtype = fields.choice(raw["dtype"], f"{where}.dtype", DTYPES)
        if raw["shape"] != [-1]:
            raise ManifestError(f"{where}.shape: expected [-1], got {raw['shape']!r}")
        categories = raw["categories"]
        return cls(
            name=fields.text(raw["name"], f"{where}.name"),
            dtype=dtype,
            nullable=fields.boolean(raw["nullable"], f"{where}.nullable"),
            categories=None if categories is None else fields.scalars(categories, f"{where}.categories"),
        )


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes
    ----------
    name : str
        ``predict`` or ``predict_proba``.
    dtype : str
        ``float64``, ``int64``, ``bool`` or ``string``.
    shape : tuple of int
        ``(-1,)``, or ``(-1, k)`` for k values a row; -1 stands for the rows.
    classes : tuple of scalars, optional
        The class labels, in the order of ``predict_proba``'s columns; None when it is not a classifier.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    classes: tuple[Scalar, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        classes = None if self.classes is None else list(self.classes)
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape), "classes": classes}

    @classmethod
    def from_json(cls, value: object, where: str) -> Output:
        """Parse one output of the manifest; raises `ManifestError` with the field's place."""
        raw = fields.mapping(value, where, ("name", "dtype", "shape", "classes"))
        shape = tuple(
            fields.integer(n, f"{where}.shape[{i}]", minimum=-1)
            for i, n in enumerate(fields.sequence(raw["shape"], f"{where}.shape"))
        )
        if len(shape) not in (1, 2) or shape[0] != -1 or min(shape[1:], default=1) < 1:
            raise ManifestError(f"{where}.shape: expected [-1] or [-1, k], got {raw['shape']!r}")
        classes = raw["classes"]
        return cls(
            name=fields.choice(raw["name"], f"{where}.name", ("predict", "predict_proba")),
            dtype=fields.choice(raw["dtype"], f"{where}.dtype", DTYPES),
            shape=shape,
            classes=None if classes is None else fields.scalars(classes, f"{where}.classes"),
        )


@dataclass(frozen=True)
class Signature:
    """All inputs and outputs of a model."""

    layout: Layout
    inputs: tuple[Feature, ...]
    outputs: tuple[Output, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the estimator's order."""
        return tuple(feature.name for feature in self.inputs)

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """The outputs' names; ``predict`` is always the first."""
        return tuple(output.name for output in self.outputs)

    @cached_property
    def plain(self) -> bool:
        """Whether any finite number is allowed in every cell: the fast path's condition."""
        return self.layout == "matrix" and not any(f.nullable for f in self.inputs)

    def output(self, name: str) -> Output:
        """Return the output of that name; raises KeyError."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's form."""
        return {
            "layout": self.layout,
            "inputs": [feature.to_json() for feature in self.inputs],
            "outputs": [output.to_json() for output in self.outputs],
        }

    @classmethod
    def from_json(cls, value: object, where: str = "signature") -> Signature:
        """Parse the manifest's form; raises `ManifestError` with the field's place."""
        raw = fields.mapping(value, where, ("layout", "inputs", "outputs"))
        layout = fields.choice(raw["layout"], f"{where}.layout", LAYOUTS)
        inputs = tuple(
            Feature.from_json(item, f"{where}.inputs[{i}]")
            for i, item in enumerate(fields.sequence(raw["inputs"], f"{where}.inputs"))
        )
        outputs = tuple(
            Output.from_json(item, f"{where}.outputs[{i}]")
            for i, item in enumerate(fields.sequence(raw["outputs"], f"{where}.outputs"))
        )
        names = [feature.name for feature in inputs]
        if not names or len(set(names)) != len(names):
            raise ManifestError(f"{where}.inputs: expected one or more inputs of different names, got {names}")
        if [output.name for output in outputs] not in (["predict"], ["predict", "predict_proba"]):
            raise ManifestError(f"{where}.outputs: expected predict, then perhaps predict_proba")
        if layout == "matrix" and {f.dtype for f in inputs} not in ({"float64"}, {"float32"}):
            raise ManifestError(f"{where}.inputs: a matrix has one dtype, float64 or float32")
        if layout == "matrix" and any(f.categories is not None for f in inputs):
            raise ManifestError(f"{where}.inputs: a matrix has no categories")
        if layout == "text" and [f.dtype for f in inputs] != ["string"]:
            raise ManifestError(f"{where}.inputs: the text layout has one input of dtype string")
        return cls(layout=layout, inputs=inputs, outputs=outputs)  # type: ignore[arg-type]  # choice() checked it
