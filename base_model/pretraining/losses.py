"""Pure losses of pretraining. Shapes: B images, H, W pixels; N tokens, C channels; h, w latent positions."""

import torch
from torch import Tensor


def flow_matching(v_BNC: Tensor, target_BNC: Tensor) -> Tensor:
    """Squared error of the velocity, mean over tokens and channels: one number an image, [B]."""
    return (v_BNC - target_BNC).float().square().mean(dim=(1, 2))


def reconstruction(decoded_B3HW: Tensor, pixels_B3HW: Tensor) -> Tensor:
    """Absolute error of pixels and of their differences to the right and below, a scalar.

    The differences keep edges crisp, which plain L1 lets go soft.
    """
    error = decoded_B3HW - pixels_B3HW
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges


def kl_to_normal(mean_BchW: Tensor, logvar_BchW: Tensor) -> Tensor:
    """KL of the posterior to the standard normal, mean over latent elements, a scalar."""
    return 0.5 * torch.mean(mean_BchW.square() + logvar_BchW.exp() - 1.0 - logvar_BchW)


def sum_over_samples(loss_B: Tensor, total: int) -> Tensor:
    """The share of these samples in the mean over all `total` samples of an optimiser step.

    Batches of unequal size must be weighted by their samples: the mean of their means is not the
    mean (pretraining spec, section 7).
    """
    return loss_B.sum() / total
