"""What is asked: the works with their targets, and each as the requests that the servers get for it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

JSON_TYPE: Final = {"Content-Type": "application/json"}
_LENGTH: Final = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Work:
    """A kind of request, and what we want to reach with it.

    Attributes
    ----------
    name, title : str
        For the command line, and for people.
    model : str
        In the repository.
    rows : int
        In one request.
    binary : bool
        Whether we get, and give, OIP binary tensors; the naive server has only JSON.
    times_naive, times_raw : float
        Requests per second to reach, as multiples of the naive and of the do-nothing server's.
    """

    name: str
    title: str
    model: str
    rows: int
    binary: bool
    times_naive: float
    times_raw: float


WORKS: Final = (
    Work("linear-row", "breast-cancer logistic regression, one row", "breast-cancer", 1, False, 2.5, 0.5),
    Work("forest-row", "iris forest of 100 trees, one row", "iris", 1, False, 15.0, 0.5),
    Work("json-batch", "breast cancer, 1,000 rows x 30, JSON", "breast-cancer", 1_000, False, 6.0, 0.5),
    Work("binary-batch", "breast cancer, 1,000 rows x 30, OIP binary", "breast-cancer", 1_000, True, 8.0, 0.65),
)
#: One-row works are checked on this many different rows before the load; the first of them is the load.
CHECKED_ROWS: Final = 30
#: p99 of our server as a multiple of its p50.
P99_TIMES_P50: Final = 3.0


@dataclass(frozen=True)
class Case:
    """A model's rows and its estimator's answers, as `benchmarks.prepare` wrote them.

    Attributes
    ----------
    rows : list of n_samples lists of float
        From the data set.
    labels : list of n_samples int
        ``estimator.predict(rows)``.
    engine : str
        What the bundle is served with by default.
    """

    rows: list[list[float]]
    labels: list[int]
    engine: str

    @classmethod
    def read(cls, folder: Path, model: str) -> Case:
        """Read the model's JSON file."""
        return cls(**json.loads((folder / f"{model}.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Call:
    """One request, and how to read its answer.

    Attributes
    ----------
    path, headers, body
        Of the POST.
    read : callable
        The answer's headers and body to the labels, a list of int.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    read: Callable[[Mapping[str, str], bytes], list[int]]


def json_call(path: str, rows: list[list[float]]) -> Call:
    """Return a call of the Simple API; the body is what a client's ``json=`` makes of the rows."""
    features = rows[0] if len(rows) == 1 else rows
    return Call(path, JSON_TYPE, json.dumps({"features": features}).encode(), _read_json)


def binary_call(model: str, tensor: str, rows: list[list[float]]) -> Call:
    """Return a call of the Open Inference Protocol with binary tensors both ways.

    Parameters
    ----------
    model : str
        Whose infer path.
    tensor : str
        The name of the one input, as the model's metadata says it.
    rows : list of n_samples lists of n_features float
        Sent as little-endian FP64.
    """
    values = [value for row in rows for value in row]
    data = struct.pack(f"<{len(values)}d", *values)
    described = {
        "name": tensor,
        "shape": [len(rows), len(rows[0])],
        "datatype": "FP64",
        "parameters": {"binary_data_size": len(data)},
    }
    # Only the labels: the naive server answers no probabilities either.
    asked = {"inputs": [described], "outputs": [{"name": "predict"}], "parameters": {"binary_data_output": True}}
    header = json.dumps(asked).encode()
    headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(header))}
    return Call(f"/v2/models/{model}/infer", headers, header + data, _read_binary)


def raw_answer(work: Work, labels: list[int]) -> bytes:
    """Return an answer of the kind and size that our server gives, for the one that only repeats it."""
    if not work.binary:
        answer: dict[str, Any] = {"prediction": labels[0]} if work.rows == 1 else {"predictions": labels[: work.rows]}
        return json.dumps(answer, separators=(",", ":")).encode()
    data = struct.pack(f"<{work.rows}q", *labels[: work.rows])
    output = {
        "name": "predict",
        "shape": [work.rows],
        "datatype": "INT64",
        "parameters": {"binary_data_size": len(data)},
    }
    header = {"model_name": work.model, "model_version": "1", "outputs": [output]}
    return json.dumps(header, separators=(",", ":")).encode() + data


def _read_json(_headers: Mapping[str, str], body: bytes) -> list[int]:
    answer = json.loads(body)
    labels: list[int] = answer["predictions"] if "predictions" in answer else [answer["prediction"]]
    return labels


def _read_binary(headers: Mapping[str, str], body: bytes) -> list[int]:
    length = int(headers[_LENGTH])
    offset = length
    for output in json.loads(body[:length])["outputs"]:
        if output["name"] == "predict":
            return list(struct.unpack_from(f"<{output['shape'][0]}q", body, offset))
        offset += output["parameters"]["binary_data_size"]
    raise KeyError("predict")
