"""DiffusionNFT (arXiv 2509.16117) as pure functions of tensors.

Legend: P prompts of a step, G images of a prompt, B samples of a batch, N tokens, C channels,
T training timesteps. Sigma is the noise level, 1 = pure noise; x = (1 - sigma) x0 + sigma eps and
the velocity is v = eps - x0. The mean over all elements of one sample is written mean_el.

Where the paper and its code differ, the code is followed: the std of the advantage is taken over
the whole step, and the factor C (`clip`) returns in the loss what the mapping to [0, 1] shrank.
"""

import torch
from torch import Tensor

STD_FLOOR = 1e-4
WEIGHT_FLOOR = 1e-5


def advantage(reward_PG: Tensor, *, clip: float, std_over: str = "step") -> Tensor:
    """Reward less its group's mean, over the population std of the step (or the group), clipped.

    NaN marks an image without a reward: it enters no mean and no std, and its advantage is 0.
    Section 1.2 of the paper, `global_std` of its code. float64 [P, G] -> float64 [P, G].
    """
    reward_PG = reward_PG.double()
    valid_PG = ~reward_PG.isnan()
    mean_P1 = reward_PG.nanmean(dim=1, keepdim=True)
    if std_over == "step":
        spread = reward_PG[valid_PG].std(correction=0) if valid_PG.any() else reward_PG.new_zeros(())
    else:
        spread = ((reward_PG - mean_P1) ** 2).nanmean(dim=1, keepdim=True).sqrt()
    advantage_PG = (reward_PG - mean_P1) / (spread + STD_FLOOR)
    return torch.where(valid_PG, advantage_PG, 0.0).nan_to_num(0.0).clamp(-clip, clip)


def optimality(advantage_PG: Tensor, *, clip: float) -> Tensor:
    """Advantage in [-clip, clip] to the paper's r in [0, 1]: r = 1/2 + A / (2 clip)."""
    return (advantage_PG / (2 * clip) + 0.5).clamp(0.0, 1.0)


def teaches(reward_PG: Tensor) -> Tensor:
    """Which groups can teach anything: at least two valid rewards that differ. bool [P]."""
    low_P = reward_PG.nan_to_num(torch.inf).amin(dim=1)
    high_P = reward_PG.nan_to_num(-torch.inf).amax(dim=1)
    return high_P > low_P


def policy_loss(
    v_BNC: Tensor,
    v_old_BNC: Tensor,
    *,
    x_BNC: Tensor,
    x0_BNC: Tensor,
    sigma_B: Tensor,
    optimality_B: Tensor,
    nft_beta: float,
    clip: float,
    self_normalised: bool = True,
) -> Tensor:
    """The loss of each sample, [B]: clip / beta * (r l+ + (1 - r) l-).

    `x_BNC` is the noised latent that both velocities were predicted from, `x0_BNC` the clean one.
    The implicit policies v+ = (1 - beta) v_old + beta v and v- = (1 + beta) v_old - beta v are
    compared with the clean latent through their estimate x0 = x - sigma v. Each term is divided by
    its own mean absolute error (no gradient, in float64), which makes the pull of every sample
    equally strong whatever its error; `self_normalised=False` gives the plain squares.
    `v_old_BNC` carries no gradient.
    """
    sigma_B11 = sigma_B[:, None, None]
    v_old_BNC = v_old_BNC.detach()

    def term(implicit_BNC: Tensor) -> Tensor:
        error_BNC = (x_BNC - sigma_B11 * implicit_BNC - x0_BNC).double()
        squared_B = error_BNC.square().mean(dim=(1, 2))
        if not self_normalised:
            return squared_B
        return squared_B / error_BNC.detach().abs().mean(dim=(1, 2)).clamp(min=WEIGHT_FLOOR)

    better_B = term((1 - nft_beta) * v_old_BNC + nft_beta * v_BNC)
    worse_B = term((1 + nft_beta) * v_old_BNC - nft_beta * v_BNC)
    return clip / nft_beta * (optimality_B * better_B + (1 - optimality_B) * worse_B)


def kl_loss(v_BNC: Tensor, v_reference_BNC: Tensor) -> Tensor:
    """Distance to the frozen start in velocity space, mean_el (v - v_ref)^2, [B]."""
    return (v_BNC - v_reference_BNC.detach()).double().square().mean(dim=(1, 2))


def old_decay(schedule: str, step: int) -> float:
    """eta of `old <- eta old + (1 - eta) current` after `step` gradient steps.

    "on_policy", "ramp" (the paper's default) and "late" (its OCR runs) are types 0, 1 and 2 of
    the reference code.
    """
    if schedule == "on_policy":
        return 0.0
    if schedule == "ramp":
        return min(0.001 * step, 0.5)
    if schedule == "late":
        return 0.0 if step < 75 else min(0.0075 * (step - 75), 0.999)
    raise ValueError(f"old schedule {schedule!r} is none of on_policy, ramp, late")


def ema_decay(step: int, limit: float) -> float:
    """Decay of the evaluation weights after `step` updates: young averages forget faster."""
    return min((1 + step) / (10 + step), limit)


def stratified_sigmas(grid: Tensor, uniform_BT: Tensor, *, high_noise_share: float) -> Tensor:
    """T training sigmas a sample, one from each of T equal strata of the sampler's noisy part.

    `grid` is the sampler's own sigmas [S + 1], from 1 down to 0; `uniform_BT` in [0, 1) places a
    sample inside its stratum. Positions run along the grid, so the sigmas follow its resolution
    shift. The gradient grows linearly with sigma (closed form 2), hence the noisy part only.
    """
    num = uniform_BT.shape[1]
    stratum_T = torch.arange(num, device=grid.device)
    position_BT = (stratum_T + uniform_BT) / num * high_noise_share * (len(grid) - 1)
    left_BT = position_BT.floor().long().clamp(max=len(grid) - 2)
    fraction_BT = position_BT - left_BT
    return grid[left_BT] * (1 - fraction_BT) + grid[left_BT + 1] * fraction_BT


def reference_sigmas(grid: Tensor, uniform_BT: Tensor) -> Tensor:
    """The reference code's choice: each sample's own permutation of the sampler's sigmas, less one.

    `uniform_BT` has as many columns as the sampler has steps S; the result has int(0.99 S).
    """
    order_BT = uniform_BT.argsort(dim=1)[:, : int(0.99 * uniform_BT.shape[1])]
    return grid[:-1][order_BT]
