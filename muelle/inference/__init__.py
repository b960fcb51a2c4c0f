"""Rows in, answers out: the predictor that the service, batch jobs and applications share. No HTTP here."""

from muelle.inference.predictor import Predictor

__all__ = ["Predictor"]
