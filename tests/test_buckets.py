"""Picture sizes."""

import pytest

from base_model import buckets
from base_model.buckets import INFERENCE_BUCKETS, TRAINING_BUCKETS


def test_released_token_counts():
    assert [buckets.tokens(size) for size in INFERENCE_BUCKETS[1024][:5]] == [4232, 4128, 4056, 3888, 4096]
    assert [buckets.tokens(size) for size in INFERENCE_BUCKETS[1440][:5]] == [8450, 8228, 8030, 7676, 8100]
    assert buckets.grid((2080, 1040)) == (130, 65)


def test_training_buckets():
    sizes = [size for base in TRAINING_BUCKETS.values() for size in base]
    assert len(set(sizes)) == len(sizes) == 27
    assert all(side % 32 == 0 for size in sizes for side in size)
    assert len({buckets.tokens(size) for size in sizes}) == 14
    expected = {512: [968, 1008, 1040, 1064, 1024], 768: [2312, 2304, 2400, 2352, 2304]}
    for base, counts in expected.items():
        assert [buckets.tokens(size) for size in TRAINING_BUCKETS[base][:5]] == counts


@pytest.mark.parametrize("table", [*INFERENCE_BUCKETS.values(), *TRAINING_BUCKETS.values()])
def test_both_orientations(table):
    assert len(table) == 9
    assert {(w, h) for h, w in table} == set(table)


def test_a_wrong_size_names_the_nearest_right_ones():
    with pytest.raises(ValueError, match=r"multiples of 16; nearest valid: \(96, 1024\) and \(112, 1024\)"):
        buckets.check_size((100, 1024))
    with pytest.raises(ValueError, match=r"nearest valid: \(8, 8\)$"):
        buckets.check_size((0, 8), 8)
    buckets.check_size((40, 40), 8)


def test_nearest_bucket():
    assert buckets.nearest_bucket(1.0, INFERENCE_BUCKETS[1024]) == (1024, 1024)
    assert buckets.nearest_bucket(16 / 9, INFERENCE_BUCKETS[1024]) == (1376, 768)
    assert buckets.nearest_bucket(1 / 100, INFERENCE_BUCKETS[1440]) == (1040, 2080)
    with pytest.raises(ValueError, match="aspect"):
        buckets.nearest_bucket(0, INFERENCE_BUCKETS[1024])


def test_nearest_and_usual_sizes():
    assert buckets.nearest_sizes((1000, 1024)) == [(992, 1024), (1008, 1024)]
    assert buckets.nearest_sizes((1024, 736)) == [(1024, 736)]
    assert buckets.nearest_sizes((-3, 5), 4) == [(4, 4), (4, 8)]
    for multiple in (4, 8, 16, 32):
        buckets.check_size(buckets.usual_size(multiple), multiple)
    assert buckets.usual_size() == (1024, 1024)
