"""A picture depends on its own place in the run, never on its batch."""

import numpy as np
import pytest

from lens_core.records import Prompt
from lens_rl.rollout import FeatureBank, batches_by_size, diversity, plan, roll_out
from tests.tiny import tiny_generator

PROMPTS = [Prompt("a", "one red circle"), Prompt("b", "two blue squares on a white background")]
SIZES = [(16, 16), (8, 16), (16, 8)]


@pytest.mark.parametrize("mode", ["per_group", "within_group"])
def test_plan_uses_every_size_equally(mode):
    orders = plan(PROMPTS * 3, images_per_prompt=3, sizes=SIZES, size_mode=mode, seed=5)
    assert [(order.group, order.index) for order in orders] == [(g, i) for g in range(6) for i in range(3)]
    assert {size: sum(order.size == size for order in orders) for size in SIZES} == dict.fromkeys(SIZES, 6)
    inside = {group: {order.size for order in orders if order.group == group} for group in range(6)}
    assert all(len(sizes) == (1 if mode == "per_group" else 3) for sizes in inside.values())
    assert len({order.seed for order in orders}) == len(orders)


def test_batches_hold_one_size_and_lose_nothing():
    orders = plan(PROMPTS, images_per_prompt=7, sizes=SIZES, size_mode="within_group", seed=0)
    batches = batches_by_size(orders, 4)
    assert all(len(batch) <= 4 and len({order.size for order in batch}) == 1 for batch in batches)
    assert sorted(order.seed for batch in batches for order in batch) == sorted(order.seed for order in orders)


def pictures(batch_size):
    generator = tiny_generator()
    orders = plan(PROMPTS, images_per_prompt=4, sizes=SIZES, size_mode="within_group", seed=1)
    made = roll_out(generator, FeatureBank(generator), orders, num_steps=3, sampler="euler", batch_size=batch_size)
    return {(order.group, order.index): sample for order, sample in made}


def test_batching_changes_no_picture():
    one, many = pictures(1), pictures(8)
    assert one.keys() == many.keys() and len(one) == 8
    for key in one:
        np.testing.assert_allclose(one[key].latent, many[key].latent, atol=1e-4)
        assert one[key].image.shape == (*one[key].size, 3)
        assert one[key].image.dtype == np.uint8


def test_diversity_is_zero_for_copies_and_nan_for_singles():
    sample = pictures(8)[0, 0]
    orders = plan(PROMPTS[:1], images_per_prompt=3, sizes=[sample.size], size_mode="per_group", seed=1)
    assert diversity((order, sample) for order in orders) == 0.0
    assert np.isnan(diversity([(orders[0], sample)]))
