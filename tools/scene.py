"""Requests as callers of two slots send them: rows and batches, both protocols, mistakes, and labels later."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import requests
from sklearn.datasets import load_breast_cancer

MODEL: Final = "breast-cancer"
#: The columns that drift: a gauge that was adjusted, say.
DRIFTING: Final = (0, 1, 20)
_TIMEOUT_SECONDS: Final = 30.0


class SceneError(Exception):
    """A server answered otherwise than it should."""


class Traffic:
    """Callers of the servers of one release.

    Parameters
    ----------
    slots : mapping
        Slot to the URL of its server, which serves breast-cancer and linear.
    seed : int
        Of what is asked.
    """

    def __init__(self, slots: Mapping[str, str], seed: int = 7) -> None:
        self._slots = dict(slots)
        self._random = np.random.default_rng(seed)
        self._rows, self._labels = load_breast_cancer(return_X_y=True)
        self._spread = self._rows.std(axis=0)
        self._session = requests.Session()

    def ask(self, shares: Mapping[str, float], shift: float = 0.0) -> None:
        """Send one request of some kind, and perhaps its labels.

        Parameters
        ----------
        shares : mapping
            Slot to its share of the requests; they add up to 1.
        shift : float
            How many standard deviations the columns of `DRIFTING` are off.
        """
        url = self._slots[str(self._random.choice(list(shares), p=list(shares.values())))]
        kind = self._random.random()
        if kind < 0.03:
            self._post(url, f"/models/{MODEL}/predict", {"features": [1.0, 2.0]}, 400)
        elif kind < 0.04:
            self._post(url, "/models/nobody/predict", {"features": [1.0]}, 404)
        elif kind < 0.15:
            self._ask_linear(url)
        else:
            self._ask_cancer(url, kind, shift)

    def burst(self, slot: str, count: int = 24) -> int:
        """Send large requests at once, of a model that nobody watches here; return how many were turned away."""
        body = {"input": self._random.integers(1, 31, 30_000).astype(float).reshape(-1, 1).tolist()}
        answers: list[int] = []

        def send() -> None:
            url = f"{self._slots[slot]}/models/linear/predict"
            answers.append(requests.post(url, json=body, timeout=_TIMEOUT_SECONDS).status_code)

        threads = [threading.Thread(target=send) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers.count(503)

    def _ask_cancer(self, url: str, kind: float, shift: float) -> None:
        size = 1 if kind < 0.8 else 25
        chosen = self._random.integers(0, len(self._rows), size)
        rows = self._rows[chosen].copy()
        rows[:, DRIFTING] += shift * self._spread[list(DRIFTING)]
        if kind > 0.95:
            tensor = {"name": "features", "shape": list(rows.shape), "datatype": "FP64", "data": rows.tolist()}
            answer = self._post(url, f"/v2/models/{MODEL}/infer", {"inputs": [tensor]}, 200)
        else:
            body = {"features": rows.tolist(), "probabilities": True}
            answer = self._post(url, f"/models/{MODEL}/predict", body, 200)
        if self._random.random() < 0.5:
            self._tell(url, answer, [int(label) for label in self._labels[chosen]])

    def _ask_linear(self, url: str) -> None:
        value = float(self._random.integers(1, 31))
        answer = self._post(url, "/models/linear/predict", {"input": [value]}, 200)
        if self._random.random() < 0.5:
            self._tell(url, answer, [2 * value + float(self._random.normal(0, 0.3))])

    def _tell(self, url: str, answer: requests.Response, labels: list[Any]) -> None:
        """Send labels that were observed some minutes after the answer."""
        # Minutes ahead of the clock, so that nobody has to wait for them.
        observed = datetime.now(UTC) + timedelta(minutes=float(self._random.gamma(2.0, 4.0)))
        told = {"request_id": answer.headers["X-Request-Id"], "observed_at": observed.isoformat()}
        self._post(url, "/feedback", [{**told, "row": row, "label": label} for row, label in enumerate(labels)], 200)
        if self._random.random() < 0.1:
            self._post(url, "/feedback", {"request_id": "of-another-time", "label": labels[0]}, 200)

    def _post(self, url: str, path: str, body: Any, expected: int) -> requests.Response:
        answer = self._session.post(url + path, json=body, timeout=_TIMEOUT_SECONDS)
        if answer.status_code != expected:
            raise SceneError(f"{path}: expected {expected}, got {answer.status_code}: {answer.text[:300]}")
        return answer
