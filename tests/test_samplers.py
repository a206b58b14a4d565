"""Samplers: against diffusers' Euler, on a field whose solution is known, and by their order."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from base_model import flow
from base_model.samplers import SAMPLERS, euler, multistep2


def straight(x0):
    return lambda x, sigma_B: (x - x0) / sigma_B[:, None, None]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_straight_path_is_followed_exactly(name, num_steps):
    x0, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    out = SAMPLERS[name](straight(x0), noise, flow.inference_sigmas(25, num_steps))
    torch.testing.assert_close(out, x0, atol=1e-5, rtol=1e-5)


def gaussian(scale):
    """The exact velocity where clean samples are normal with deviation `scale`."""

    def velocity(x, sigma_B):
        s = sigma_B[:, None, None]
        return x * (s - (1 - s) * scale**2) / ((1 - s) ** 2 * scale**2 + s**2)

    return velocity


def error(sampler, num_steps, scale=0.3):
    x = torch.ones(1, 1, 1)
    sigmas = torch.linspace(0.95, 0.05, num_steps + 1)
    start, end = (math.hypot((1 - s) * scale, s) for s in (0.95, 0.05))
    return abs(sampler(gaussian(scale), x, sigmas).item() - end / start)


def test_the_multistep_sampler_is_of_second_order():
    assert error(euler, 80) / error(euler, 160) == pytest.approx(2, abs=0.2)
    assert error(multistep2, 80) / error(multistep2, 160) == pytest.approx(4, abs=0.8)
    assert error(multistep2, 20) < 0.3 * error(euler, 20)


def test_first_and_last_steps_are_first_order():
    x, field = torch.randn(1, 2, 3), gaussian(0.5)
    sigmas = torch.tensor([1.0, 0.6, 0.0])
    torch.testing.assert_close(multistep2(field, x, sigmas), euler(field, x, sigmas))


def test_the_second_order_step_by_hand():
    sigmas = torch.tensor([0.8, 0.5, 0.2])
    x0s = iter([torch.full((1, 1, 1), 2.0), torch.full((1, 1, 1), 3.0)])
    out = multistep2(lambda x, s: (x - next(x0s)) / s[:, None, None], torch.ones(1, 1, 1), sigmas)
    middle = 0.5 / 0.8 * 1 + (1 - 0.5 / 0.8) * 2
    lengths = math.log(1) - math.log(0.2 / 0.8), math.log(0.8 / 0.2) - math.log(1)
    target = 3 + lengths[1] / (2 * lengths[0]) * (3 - 2)
    assert out.item() == pytest.approx(0.4 * middle + 0.6 * target, rel=1e-5)


def test_euler_is_the_loop_of_diffusers():
    x = torch.randn(2, 4, 8)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    mu = flow.empirical_mu(4, 4)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=mu)
    weight = torch.randn(8, 8) / 8

    def velocity(x, sigma_B):
        return torch.tanh(x @ weight) * sigma_B[:, None, None]

    theirs = x
    for t in scheduler.timesteps:
        theirs = scheduler.step(velocity(theirs, (t / 1000).expand(2)), t, theirs, return_dict=False)[0]
    torch.testing.assert_close(euler(velocity, x, flow.inference_sigmas(4, 4)), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_dtype_is_kept_and_steps_are_told(name):
    seen = []
    x = torch.randn(2, 3, 4, dtype=torch.bfloat16)

    def velocity(x, sigma_B):
        assert x.dtype == torch.bfloat16 and sigma_B.dtype == torch.float32 and sigma_B.shape == (2,)
        return torch.zeros_like(x)

    out = SAMPLERS[name](velocity, x, flow.inference_sigmas(25, 3), lambda step, x: seen.append((step, x.dtype)))
    assert out.dtype == torch.bfloat16
    assert seen == [(step, torch.bfloat16) for step in range(3)]
