"""From a recipe to a bundle in the repository: the one call that training ends in."""

from __future__ import annotations

import os
from pathlib import Path

from muelle.bundle import save
from training.evaluate import FOLDS, SEED, TEST_SHARE, cross_validate, score, split
from training.recipe import Recipe


def publish(
    recipe: Recipe,
    *,
    repository: str | os.PathLike[str] = "models",
    version: str | None = None,
    onnx: bool = True,
) -> Path:
    """Train a model and write it as a bundle.

    What is published is the estimator that was scored: fitted on 80 % of the rows. Those rows give the signature and
    the reference profile; the other 20 % give the scores, the golden rows, and what ONNX must agree on.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    repository : path
        The folder of all models.
    version : str, optional
        By default the next whole number.
    onnx : bool
        Whether to try an ONNX variant.

    Returns
    -------
    Path
        The bundle's folder, ``repository/name/version``.

    Raises
    ------
    MuelleError
        As `muelle.bundle.save` does.
    """
    from sklearn.base import is_classifier

    data = recipe.data()
    estimator = recipe.estimator()
    parts = split(data, stratify=is_classifier(estimator))
    scores = cross_validate(estimator, parts.train)
    estimator.fit(parts.train.features, parts.train.target)
    return save(
        estimator,
        parts.train.features,
        name=recipe.name,
        version=version,
        repository=repository,
        X_holdout=parts.test.features,
        onnx=onnx,
        scores=scores | score(estimator, parts.test),
        parameters={
            # scikit-learn prints the hyper-parameters that differ from its defaults.
            "estimator": " ".join(repr(estimator).split()),
            "seed": SEED,
            "test_share": TEST_SHARE,
            "cv_folds": FOLDS,
            "train_rows": len(parts.train.features),
            "test_rows": len(parts.test.features),
        },
        data_digest=data.digest(),
        description=recipe.description,
    )
