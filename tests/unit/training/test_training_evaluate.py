"""Splits and scores: fixed, held out, and what scikit-learn says they are."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

from training import data
from training.data import Dataset
from training.evaluate import cross_validate, score, split


def test_the_split_is_80_20_without_overlap():
    parts = split(data.breast_cancer(), stratify=True)
    train, test = set(parts.train.features.index), set(parts.test.features.index)
    assert (len(train), len(test)) == (455, 114)
    assert not train & test
    assert parts.train.features.index.equals(parts.train.target.index)


def test_the_split_is_the_same_each_time():
    one, two = (split(data.iris(), stratify=True) for _ in range(2))
    assert one.test.features.equals(two.test.features)
    assert one.train.target.equals(two.train.target)


def test_classes_keep_their_shares():
    parts = split(data.iris(), stratify=True)
    assert parts.test.target.value_counts().tolist() == [10, 10, 10]


def test_cross_validation_leaves_the_estimator_unfitted():
    estimator = LogisticRegression(max_iter=1000)
    scores = cross_validate(estimator, split(data.iris(), stratify=True).train)
    assert set(scores) == {"cv_accuracy_mean", "cv_accuracy_std"}
    assert 0.9 < scores["cv_accuracy_mean"] <= 1
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)


def test_a_regressor_is_scored_by_r2():
    parts = split(data.linear(), stratify=False)
    assert cross_validate(LinearRegression(), parts.train) == {
        "cv_r2_mean": pytest.approx(1.0),
        "cv_r2_std": pytest.approx(0.0),
    }
    fitted = LinearRegression().fit(parts.train.features, parts.train.target)
    assert score(fitted, parts.test) == {"r2": pytest.approx(1.0), "rmse": pytest.approx(0.0, abs=1e-12)}


@pytest.mark.parametrize("load", [data.iris, data.breast_cancer])
def test_a_classifiers_scores_are_scikit_learns(load):
    parts = split(load(), stratify=True)
    forest = RandomForestClassifier(20, random_state=0).fit(parts.train.features, parts.train.target)
    scores = score(forest, parts.test)
    probabilities = forest.predict_proba(parts.test.features)
    binary = probabilities.shape[1] == 2
    auc = roc_auc_score(parts.test.target, probabilities[:, 1] if binary else probabilities, multi_class="ovr")
    assert scores == {
        "accuracy": accuracy_score(parts.test.target, forest.predict(parts.test.features)),
        "roc_auc": pytest.approx(auc),
        "log_loss": pytest.approx(log_loss(parts.test.target, probabilities)),
    }
    assert all(type(value) is float for value in scores.values())


def test_labels_may_be_words():
    numbers = data.breast_cancer()
    words = Dataset(numbers.features, numbers.target.map({0: "malignant", 1: "benign"}))
    forest = RandomForestClassifier(20, random_state=0)
    parts = split(words, stratify=True)
    forest.fit(parts.train.features, parts.train.target)
    assert score(forest, parts.test)["roc_auc"] > 0.9


def test_without_probabilities_there_is_accuracy_only():
    parts = split(data.iris(), stratify=True)
    classifier = LinearSVC(random_state=0).fit(parts.train.features, parts.train.target)
    assert set(score(classifier, parts.test)) == {"accuracy"}
    assert np.isfinite(score(classifier, parts.test)["accuracy"])
