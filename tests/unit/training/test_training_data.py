"""The training data: shapes, names, and digests that say when the data changed."""

import dataclasses

import numpy as np
import pytest

from training import data


@pytest.mark.parametrize(
    ("load", "shape", "digest"),
    [
        (data.linear, (30, 1), "5097b3db0f09d64013b5405abac425ad9d81f23eb24c54a8950dd8aeb589083a"),
        (data.breast_cancer, (569, 30), "75a1d74a59df9cb0a78ecc0a36085bf8a85239557f178d3b8d758e88b26416e1"),
        (data.iris, (150, 4), "0ba79ae755c686ee02dfe1d2943772a46ded2433c4fde6dd7ad3b01c41ff5d3d"),
    ],
)
def test_the_data_is_the_known_one(load, shape, digest):
    found = load()
    assert found.features.shape == shape
    assert found.target.shape == (shape[0],)
    assert (found.features.dtypes == np.float64).all()
    assert found.digest() == f"sha256:{digest}"


def test_linear_is_y_equals_2x():
    found = data.linear()
    assert found.target.tolist() == [2 * x for x in found.features["x"]]


def test_a_changed_value_changes_the_digest():
    found = data.iris()
    features = found.features.copy()
    features.iloc[149, 3] = np.nextafter(features.iloc[149, 3], 9.0)
    assert dataclasses.replace(found, features=features).digest() != found.digest()


def test_a_renamed_column_changes_the_digest():
    found = data.iris()
    renamed = found.features.rename(columns={"petal width (cm)": "petal width"})
    assert dataclasses.replace(found, features=renamed).digest() != found.digest()
