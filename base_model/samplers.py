"""Samplers: functions from noise to a clean sample along a velocity field.

Shapes: B samples, N image tokens, C channels. `sigmas` is fp32 [num_steps + 1], falling, its last value 0
or the sigma to stop at. State is kept in fp32; the velocity is asked for x in the dtype that came in, and
gets one sigma a sample, fp32 [B].
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_BNC, sigma_B) -> v_BNC."""

Callback = Callable[[int, Tensor], Tensor | None]
"""(step, x_BNC): called after each step, counted from 0. A tensor that it returns goes on in the place of x."""

Sampler = Callable[..., Tensor]
"""(velocity, x_BNC, sigmas, callback=None) -> x_BNC."""


def euler(velocity: Velocity, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """First order: x <- x + (next sigma - sigma) * v. The released sampler."""
    dtype = x.dtype

    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        v = velocity(x, _each(sigma, x))
        x = (x.float() + (following - sigma) * v.float()).to(dtype)
        x = _heard(callback, step, x)

    return x


def multistep2(velocity: Velocity, x: Tensor, sigmas: Tensor, callback: Callback | None = None) -> Tensor:
    """Second order, deterministic: DPM-Solver++(2M) in the flow parametrisation, one velocity a step.

    The clean sample is extrapolated in half the log signal-to-noise ratio, log((1 - sigma) / sigma). The
    first step and a last step to 0 are first order; after a start at sigma = 1 so is the second, since the
    step before it was infinitely long.
    """
    dtype, previous_x0, previous_length = x.dtype, None, math.inf

    for step, (sigma, following) in enumerate(pairwise(sigmas.tolist())):
        x0 = x.float() - sigma * velocity(x, _each(sigma, x)).float()
        length = _half_log_snr(following) - _half_log_snr(sigma)
        target = x0
        if previous_x0 is not None and math.isfinite(length):
            target = x0 + length / (2 * previous_length) * (x0 - previous_x0)
        keep = following / sigma
        x = (keep * x.float() + (1 - keep) * target).to(dtype)
        previous_x0, previous_length = x0, length
        x = _heard(callback, step, x)

    return x


SAMPLERS: dict[str, Sampler] = {"euler": euler, "multistep2": multistep2}


def _heard(callback: Callback | None, step: int, x: Tensor) -> Tensor:
    changed = callback(step, x) if callback else None
    return x if changed is None else changed


def _half_log_snr(sigma: float) -> float:
    if sigma in (0.0, 1.0):
        return math.inf if sigma == 0 else -math.inf
    return math.log((1 - sigma) / sigma)


def _each(sigma: float, x: Tensor) -> Tensor:
    return x.new_full((len(x),), sigma, dtype=torch.float32)
