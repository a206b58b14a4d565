"""Roles: equal at the start, moved only as told, back in place after every `with`, saved to the bit."""

import copy

import pytest
import torch

from lens_rl.policy import make_policy
from tests.tiny import tiny_generator

SIZE = (16, 8)


@pytest.fixture(params=["full", "lora"])
def parts(request):
    generator = tiny_generator()
    before = copy.deepcopy(generator.trainable)
    policy = make_policy(generator.trainable, generator.lora_targets, kind=request.param, rank=4, alpha=8, seed=0)
    return generator, policy, before


def velocity(generator):
    x = generator.noise(SIZE, [1, 2])
    return generator.velocity(x, torch.tensor([0.9, 0.4]), generator.encode(["a red circle", "two squares"]), SIZE)


def train_a_little(generator, policy, steps=3):
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(steps):
        velocity(generator).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def by_role(generator, policy):
    found = {}
    for role in ("current", "old", "reference", "ema"):
        with torch.no_grad(), policy.role(role):
            found[role] = velocity(generator)
    return found


def test_all_roles_start_as_the_model(parts):
    generator, policy, _ = parts
    found = by_role(generator, policy)
    for role in ("old", "ema", "current"):
        torch.testing.assert_close(found[role], found["reference"], atol=1e-6, rtol=0)


def test_training_moves_the_current_role_alone(parts):
    generator, policy, before = parts
    start = by_role(generator, policy)
    train_a_little(generator, policy)
    after = by_role(generator, policy)
    assert (after["current"] - start["current"]).abs().max() > 1e-3
    for role in ("old", "reference", "ema"):
        assert torch.equal(after[role], start[role])
    with policy.role("reference"):
        frozen = dict(before.named_parameters())
        for name, parameter in generator.trainable.named_parameters():
            plain = name.replace(".base_layer", "")
            if plain in frozen:
                assert torch.equal(parameter, frozen[plain])


def test_blend_is_the_weighted_mean(parts):
    generator, policy, _ = parts
    start = {name: tensor.clone() for name, tensor in policy.tensors().items()}
    train_a_little(generator, policy)
    policy.blend("old", 0.25)
    policy.blend("ema", 0.0)
    for name, tensor in policy.tensors().items():
        role, plain = name.split("/", 1)
        current = policy.tensors()[f"current/{plain}"]
        if role == "old":
            torch.testing.assert_close(tensor, 0.25 * start[name] + 0.75 * current)
        if role == "ema":
            assert torch.equal(tensor, current)


def test_a_role_leaves_with_its_block_even_on_error(parts):
    generator, policy, _ = parts
    train_a_little(generator, policy)
    current = velocity(generator)
    with pytest.raises(ZeroDivisionError), policy.role("old"):
        _ = 1 / 0
    assert torch.equal(velocity(generator), current)


def test_gradients_belong_to_the_current_role(parts):
    generator, policy, _ = parts
    with torch.no_grad(), policy.role("old"):
        velocity(generator)
    with torch.no_grad(), policy.role("reference"):
        velocity(generator)
    velocity(generator).square().mean().backward()
    assert any(parameter.grad is not None for parameter in policy.parameters())
    trainable = {id(parameter) for parameter in policy.parameters()}
    assert all(id(p) in trainable for p in generator.trainable.parameters() if p.grad is not None)


def test_round_trip_to_the_bit(parts):
    generator, policy, _ = parts
    train_a_little(generator, policy)
    policy.blend("old", 0.5)
    saved = {name: tensor.clone() for name, tensor in policy.tensors().items()}
    train_a_little(generator, policy)
    policy.load_tensors(saved)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in policy.tensors().items())


def test_lora_is_small_and_hits_its_targets():
    generator = tiny_generator()
    policy = make_policy(generator.trainable, generator.lora_targets, kind="lora", rank=2, alpha=4, seed=0)
    assert len(policy.parameters()) == 2 * 4 * len(generator.transformer.transformer_blocks)
