"""The server that tutorials write: Flask, ``joblib.load``, ``get_json``, ``predict``, ``jsonify``.

Run as ``gunicorn "benchmarks.naive:create_app()"`` with the joblib file's path in ``NAIVE_MODEL``. It checks nothing,
counts nothing and logs nothing: all that Muelle does beyond it has to be paid for out of the difference.
"""

from __future__ import annotations

import os

import joblib
import numpy as np
from flask import Flask, Response, jsonify, request


def create_app() -> Flask:
    """Load the estimator and return the application."""
    app = Flask(__name__)
    model = joblib.load(os.environ["NAIVE_MODEL"])

    @app.get("/")
    def status() -> Response:
        return jsonify(status="running")

    @app.post("/predict")
    def predict() -> Response:
        features = np.array(request.get_json()["features"])
        if features.ndim == 1:
            return jsonify(prediction=model.predict(features.reshape(1, -1)).tolist()[0])
        return jsonify(predictions=model.predict(features).tolist())

    return app
