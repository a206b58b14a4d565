"""A Lens of any size with random weights, and something to feed it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from base_model.transformer import LensTransformer

Inputs = tuple[Tensor, Tensor, Tensor, tuple[int, int], Tensor]
"""x_BNC, text_BLFD, sigma_B, grid and mask_BL: the arguments of a forward."""


@torch.no_grad()
def random_model(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, **config: Any
) -> LensTransformer:
    """Under these weights every part matters, no gate is shut, and 48 blocks stay finite. Made on the device."""
    with torch.device("meta"):
        model = LensTransformer(**config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.normal_(std=0.1, generator=generator).add_("norm" in name and name.endswith("weight"))
        else:
            parameter.normal_(std=1 / math.sqrt(parameter.shape[1]), generator=generator)
    return model


def random_inputs(model: LensTransformer, grid: tuple[int, int], lengths: Sequence[int]) -> Inputs:
    """One sample for each length, text padded on the right to the longest."""
    config: Any = model.config
    weight = model.img_in.weight
    generator = torch.Generator().manual_seed(1)
    samples, longest = len(lengths), max(lengths)
    x = torch.randn(samples, grid[0] * grid[1], config.in_channels, generator=generator)
    text = torch.randn(samples, longest, len(config.selected_layer_index), config.enc_hidden_dim, generator=generator)
    sigma = torch.rand(samples, generator=generator)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return x.to(weight), text.to(weight), sigma.to(weight.device), grid, mask.to(weight.device)
