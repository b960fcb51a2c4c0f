"""Which shares a number of pods can give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muelle.errors import RefusedError
from muelle.rollout.shares import pods_for, pods_to_carry


@pytest.mark.parametrize(
    ("weight", "total", "pods"),
    [
        (10, 10, 1),
        (50, 2, 1),
        (33, 3, 1),
        (67, 3, 2),
        (14, 7, 1),
        (0, 1, 0),
        (100, 1, 1),
        (0, 5, 0),
        (100, 5, 5),
        (1, 100, 1),
    ],
)
def test_shares_that_can_be_given(weight, total, pods):
    assert pods_for(weight, total) == pods


@pytest.mark.parametrize(
    ("weight", "total", "message"),
    [
        (
            10,
            3,
            "3 pods can't give 10 % of the requests to a candidate: the nearest they can give is 33 %. 10 pods can",
        ),
        (50, 3, "the nearest they can give is 33 or 67 %. 2 pods can"),
        (34, 3, "the nearest they can give is 33 or 67 %"),
        (99, 10, "the nearest they can give is 90 %"),
        (50, 1, "1 pod can't give 50 % of the requests to a candidate: it can be all or nothing. 2 pods can"),
    ],
)
def test_shares_that_can_not_be_given_name_those_that_can(weight, total, message):
    with pytest.raises(RefusedError) as caught:
        pods_for(weight, total)
    assert message in str(caught.value)


@given(st.integers(0, 100), st.integers(1, 300))
def test_a_share_is_given_to_half_a_percent_or_refused_with_one_that_works(weight, total):
    try:
        pods = pods_for(weight, total)
    except RefusedError as error:
        words = str(error).split(". ")[1]
        assert pods_for(weight, int(words.split()[0])) > 0
        return
    assert abs(100 * pods / total - weight) <= 0.5
    assert (0 < pods < total) == (0 < weight < 100)


@given(st.integers(0, 200), st.integers(1, 300))
def test_pods_carry_their_share(weight, total):
    pods = pods_to_carry(weight, total)
    assert 1 <= pods <= total
    assert pods >= min(weight, 100) * total / 100
