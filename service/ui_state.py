"""What the page at ``/ui`` asks for all the time: states and counters of this pod.

Counters stay what they are, sums since the server started. The page subtracts two of them, so any number of pages can
look, each with a window of its own, and nothing is kept for them here. Lists of counts go without their labels, which
`service.ui_models` tells once, in the same order: so a poll is a few kilobytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from muelle.bundle.binning import MISSING, OTHER
from service.metrics import SECONDS_BUCKETS, UNKNOWN

if TYPE_CHECKING:
    from service.models import ServedModel

Document = dict[str, Any]
_Labels = Mapping[str, str]
#: Model and version.
Key = tuple[str, str]


class Server(NamedTuple):
    """What is the same for all models.

    Attributes
    ----------
    version : str
        Of Muelle.
    instance : str
        Which of several replicas this is: a page must not subtract one's counters from another's.
    started_at, now : float
        Unix seconds.
    problems : sequence of str
        Why it is not ready; none when it is.
    """

    version: str
    instance: str
    started_at: float
    now: float
    problems: Sequence[str]


def state_document(
    server: Server, families: Iterable[Metric], models: Sequence[ServedModel], default: ServedModel | None
) -> Document:
    """Return what changes: states, and all workers' counters together.

    Parameters
    ----------
    server : Server
        What is the same for all models.
    families : iterable of Metric
        As `service.metrics.Metrics.families` yields them.
    models : sequence of ServedModel
        What this process serves, or failed to load.
    default : ServedModel, optional
        What answers where no model is named.

    Returns
    -------
    dict
        Per model, all since the server started: ``requests`` (by status code), ``rows``, ``seconds`` (requests in each
        bucket, not cumulative; the bounds are in ``bounds_seconds``, the last bucket is open) and ``bins`` (feature to
        rows in each bin, in the order of `service.ui_models.models_document`).
    """
    found = _Counts()
    for family in families:
        read = _READERS.get(family.name)
        if read is not None:
            for sample in family.samples:
                read(found, sample)
    return {
        "version": server.version,
        "instance": server.instance,
        "started_at": server.started_at,
        "now": server.now,
        "status": "not ready" if server.problems else "ready",
        "problems": list(server.problems),
        "bounds_seconds": SECONDS_BUCKETS,
        "models": [_model(model, model is default) | found.of((model.name, model.version)) for model in models],
        # Requests for models that aren't served.
        "unknown": dict(found.requests[UNKNOWN, UNKNOWN]),
        "shed": found.shed,
        "processes": [
            {"slot": slot, "cpu_seconds": seconds, "memory_bytes": found.memory.get(slot, 0.0)}
            for slot, seconds in sorted(found.cpu.items(), key=lambda item: _process_order(item[0]))
        ],
    }


class _Counts:
    """What the samples say, by model; counts as whole numbers, which are shorter."""

    def __init__(self) -> None:
        self.requests: defaultdict[Key, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.rows: defaultdict[Key, int] = defaultdict(int)
        self.seconds: defaultdict[Key, dict[float, int]] = defaultdict(dict)
        self.bins: defaultdict[Key, defaultdict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
        self.shed = 0
        self.cpu: dict[str, float] = {}
        self.memory: dict[str, float] = {}

    def of(self, key: Key) -> Document:
        return {
            "requests": dict(self.requests[key]),
            "rows": self.rows[key],
            "seconds": _apart([count for _, count in sorted(self.seconds[key].items())]),
            "bins": {name: [counts[label] for label in ordered(counts)] for name, counts in self.bins[key].items()},
        }

    def request(self, sample: Sample) -> None:
        if sample.name.endswith("_total"):
            self.requests[key_of(sample.labels)][sample.labels["code"]] += int(sample.value)

    def row(self, sample: Sample) -> None:
        if sample.name.endswith("_sum"):
            self.rows[key_of(sample.labels)] = int(sample.value)

    def duration(self, sample: Sample) -> None:
        if sample.name.endswith("_bucket"):
            self.seconds[key_of(sample.labels)][float(sample.labels["le"])] = int(sample.value)

    def binned(self, sample: Sample) -> None:
        if sample.name.endswith("_total"):
            labels = sample.labels
            self.bins[key_of(labels)][labels["feature"]][labels["bin"]] = int(sample.value)

    def turned_away(self, sample: Sample) -> None:
        if sample.name.endswith("_total"):
            self.shed += int(sample.value)

    def cpu_seconds(self, sample: Sample) -> None:
        self.cpu[sample.labels["slot"]] = sample.value

    def memory_bytes(self, sample: Sample) -> None:
        self.memory[sample.labels["slot"]] = sample.value


_READERS: Final = {
    "muelle_requests": _Counts.request,
    "muelle_batch_rows": _Counts.row,
    "muelle_request_duration_seconds": _Counts.duration,
    "muelle_feature_bin": _Counts.binned,
    "muelle_shed": _Counts.turned_away,
    "muelle_worker_cpu_seconds": _Counts.cpu_seconds,
    "muelle_worker_memory_bytes": _Counts.memory_bytes,
}


def _model(model: ServedModel, is_default: bool) -> Document:
    predictor = model.predictor
    return {
        "model": model.name,
        "version": model.version,
        "default": is_default,
        "state": model.state,
        "reason": model.reason,
        "engine": None if predictor is None else predictor.engine,
        "estimator": None if predictor is None else predictor.manifest.estimator,
        "digest": None if predictor is None else predictor.digest,
    }


def ordered(labels: Iterable[str]) -> list[str]:
    """Return bins in the order of `muelle.bundle.binning`: numbered ones, other, missing."""
    return sorted(labels, key=lambda label: (label == MISSING, label == OTHER, label))


def _process_order(slot: str) -> tuple[bool, int, str]:
    return (not slot.isdigit(), int(slot) if slot.isdigit() else 0, slot)


def _apart(cumulative: Sequence[int]) -> list[int]:
    return [*cumulative[:1], *(after - before for before, after in pairwise(cumulative))]


def key_of(labels: _Labels) -> Key:
    """Return the model and version of a sample."""
    return labels["model"], labels["version"]
