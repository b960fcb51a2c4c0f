"""How good a model is: a fixed 80/20 split, cross-validation on the 80, scores on the 20."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from training.data import Dataset

#: Seeds the split and the folds, so that the same data gives the same scores.
SEED: Final = 42
TEST_SHARE: Final = 0.2
FOLDS: Final = 5


@dataclass(frozen=True)
class Split:
    """The rows to fit on and the rows that the estimator must never see.

    Attributes
    ----------
    train, test : Dataset
        80 % and 20 % of the rows; classes keep their shares.
    """

    train: Dataset
    test: Dataset


def split(data: Dataset, *, stratify: bool) -> Split:
    """Split the rows 80/20 with a fixed seed.

    Parameters
    ----------
    data : Dataset
        All rows.
    stratify : bool
        Whether both parts get each class in the same share: for classification.
    """
    from sklearn.model_selection import train_test_split

    X_train, X_test, y_train, y_test = train_test_split(  # noqa: N806  # scikit-learn's names for them
        data.features,
        data.target,
        test_size=TEST_SHARE,
        random_state=SEED,
        stratify=data.target if stratify else None,
    )
    return Split(train=Dataset(X_train, y_train), test=Dataset(X_test, y_test))


def cross_validate(estimator: Any, train: Dataset) -> dict[str, float]:
    """Score clones of an estimator on five folds of the training rows.

    Parameters
    ----------
    estimator : object
        Not fitted, and left so.
    train : Dataset
        The training rows; the test rows stay out, or they would no longer be unseen.

    Returns
    -------
    dict
        ``cv_accuracy_mean`` and ``cv_accuracy_std`` for a classifier, else ``cv_r2_mean`` and ``cv_r2_std``.
    """
    from sklearn.base import is_classifier
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

    classifier = is_classifier(estimator)
    folds = (StratifiedKFold if classifier else KFold)(n_splits=FOLDS, shuffle=True, random_state=SEED)
    metric = "accuracy" if classifier else "r2"
    scores = cross_val_score(estimator, train.features, train.target, cv=folds, scoring=metric)
    return {f"cv_{metric}_mean": float(scores.mean()), f"cv_{metric}_std": float(scores.std())}


def score(estimator: Any, test: Dataset) -> dict[str, float]:
    """Score a fitted estimator on rows it has not seen.

    Returns
    -------
    dict
        ``accuracy``, and with probabilities ``roc_auc`` (one against the rest, for more than two classes) and
        ``log_loss`` for a classifier; else ``r2`` and ``rmse`` in the target's unit.
    """
    from sklearn import metrics
    from sklearn.base import is_classifier

    predicted = estimator.predict(test.features)
    if not is_classifier(estimator):
        return {
            "r2": float(metrics.r2_score(test.target, predicted)),
            "rmse": float(metrics.root_mean_squared_error(test.target, predicted)),
        }
    scores = {"accuracy": float(metrics.accuracy_score(test.target, predicted))}
    if hasattr(estimator, "predict_proba"):
        classes = estimator.classes_
        probabilities = estimator.predict_proba(test.features)
        ranked = probabilities[:, 1] if len(classes) == 2 else probabilities
        scores["roc_auc"] = float(metrics.roc_auc_score(test.target, ranked, multi_class="ovr", labels=classes))
        scores["log_loss"] = float(metrics.log_loss(test.target, probabilities, labels=classes))
    return scores
