"""How good the answers were: the prediction log joined with the labels that became known later, and scores of that."""

from muelle.quality.evaluate import Evaluation, Row
from muelle.quality.scores import Score

__all__ = ["Evaluation", "Row", "Score"]
