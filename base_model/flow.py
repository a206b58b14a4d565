"""Flow-matching maths as pure functions: noise, velocity, noise schedules, guidance.

Time is sigma in [0, 1]: 1 is pure noise, 0 is clean, x = (1 - sigma) * x0 + sigma * noise, and the velocity
is v = dx / dsigma = noise - x0. The Lens paper writes both the other way round; the released code is as here.

Shapes: B samples, any trailing dimensions. A `sigma_B` is a float, a scalar tensor or a tensor [B], and
broadcasts over the trailing dimensions.
"""

import math

import torch
from torch import Tensor

Sigma = Tensor | float

EMPIRICAL_MU_LAST_TOKEN_COUNT = 4300
TINY = 1e-12


def add_noise(x0: Tensor, noise: Tensor, sigma_B: Sigma) -> Tensor:
    """The point at `sigma_B` on the straight line from `x0` to `noise`; all [B, ...]."""
    sigma = _over(sigma_B, x0)
    return (1 - sigma) * x0 + sigma * noise


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """What the model learns to predict: noise - x0."""
    return noise - x0


def x0_from_velocity(x: Tensor, v: Tensor, sigma_B: Sigma) -> Tensor:
    """The clean sample that a velocity `v` at the noisy `x` [B, ...] points to."""
    return x - _over(sigma_B, x) * v


def empirical_mu(num_tokens: int, num_steps: int) -> float:
    """Lens' (and FLUX.2's) log shift for inference, from the image's token count and the number of steps.

    Above 4300 tokens the number of steps no longer counts: the jump there is in the released code.
    """
    at_200_steps = 0.00016927 * num_tokens + 0.45666666
    if num_tokens > EMPIRICAL_MU_LAST_TOKEN_COUNT:
        return at_200_steps
    at_10_steps = 8.73809524e-5 * num_tokens + 1.89833333
    slope = (at_200_steps - at_10_steps) / 190
    return slope * num_steps + at_200_steps - 200 * slope


def shift_sigma(sigma: Tensor, mu: float) -> Tensor:
    """Exponential shift: sigma' = e^mu / (e^mu + 1 / sigma - 1)."""
    return scale_sigma(sigma, math.exp(mu))


def scale_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Constant shift: sigma' = s * sigma / (1 + (s - 1) * sigma). `shift_sigma` with s = e^mu."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def uniform_sigmas(num_steps: int) -> Tensor:
    """1, ..., 1 / num_steps in equal steps, float64 [num_steps], before any shift."""
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}; it must be at least 1")
    return torch.linspace(1, 1 / num_steps, num_steps, dtype=torch.float64)


def ending_in_zero(sigmas: Tensor) -> Tensor:
    """Shifted sigmas as a sampler takes them: fp32 [num_steps + 1], the last one 0."""
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def inference_sigmas(num_tokens: int, num_steps: int) -> Tensor:
    """The released schedule, fp32 [num_steps + 1], from 1 down to 0."""
    return ending_in_zero(shift_sigma(uniform_sigmas(num_steps), empirical_mu(num_tokens, num_steps)))


def training_mu(num_tokens: int) -> float:
    """Mean of the logit-normal training sigma (paper): linear in the tokens, 1.0 at 256 and 1.3 at 4096."""
    return 1.0 + 0.3 * (num_tokens - 256) / (4096 - 256)


def logit_normal_sigma(num: int, mu: float, std: float, generator: torch.Generator | None = None) -> Tensor:
    """sigmoid(mu + std * normal), fp32 [num] on the generator's device; mu > 0 leans to noise."""
    device = generator.device if generator is not None else None
    return torch.sigmoid(mu + std * torch.randn(num, generator=generator, device=device))


def guide_with_norm_rescale(cond: Tensor, uncond: Tensor, g: float) -> Tensor:
    """Classifier-free guidance u + g * (c - u), each token rescaled to the norm of its conditional velocity.

    Velocities are [..., C]; the norm is over the channels. A token whose guided velocity is 0 stays 0.
    """
    guided = uncond + g * (cond - uncond)
    norm = torch.linalg.vector_norm(guided, dim=-1, keepdim=True)
    return guided * (torch.linalg.vector_norm(cond, dim=-1, keepdim=True) / norm.clamp_min(TINY))


def _over(sigma_B: Sigma, x: Tensor) -> Sigma:
    """sigma_B with trailing dimensions of size 1, so that it broadcasts against x [B, ...]."""
    if not isinstance(sigma_B, Tensor) or sigma_B.ndim == 0:
        return sigma_B
    return sigma_B.reshape(-1, *[1] * (x.ndim - 1))
