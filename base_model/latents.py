"""Images to latent tokens and back, through a FLUX.2-style autoencoder of any size.

Shapes: B images; H, W pixels; h, w latent positions; c latent channels; N = tokens; C = 4 * c token channels.
The channel of a token is c * 4 + row offset * 2 + column offset; tokens are in row-major order and normalised
by the autoencoder's BatchNorm statistics after the patches are made.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from torch import Tensor

from base_model import buckets
from base_model.tiles import decode_in_tiles
from lens_core.records import Size

PIXELS_AT_ONCE = 2**20
"""Coded together. 1024 x 1024 pixels take some 3 GiB in the released autoencoder in fp32, besides its weights."""


class LatentCodec:
    """Codes with a frozen `AutoencoderKLFlux2`; `size_multiple` is the side of one token in pixels."""

    def __init__(self, vae: AutoencoderKLFlux2):
        self.vae = vae.eval().requires_grad_(False)
        config = cast(Any, vae.config)
        if tuple(config.patch_size) != (2, 2):
            raise ValueError(f"vae patch_size: {list(config.patch_size)}; only [2, 2] is supported")
        self.size_multiple = size_multiple(config)
        self.channels = 4 * config.latent_channels
        self._eps = config.batch_norm_eps

    @torch.no_grad()
    def encode(self, images: np.ndarray | Tensor) -> Tensor:
        """uint8 images [B, H, W, 3] -> normalised tokens [B, N, C], fp32: the posterior's mean."""
        pixels = torch.as_tensor(images)
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != torch.uint8:
            raise ValueError(f"images: {pixels.dtype} {list(pixels.shape)}; they must be uint8 [B, H, W, 3]")
        size = (pixels.shape[1], pixels.shape[2])
        buckets.check_size(size, self.size_multiple)
        means = [self._posterior_mean(rows) for rows in pixels.split(_rows_at_once(size))]
        mean, deviation = self._statistics()
        return (patchify(torch.cat(means)) - mean) / deviation

    def decode(self, x_BNC: Tensor, size: Size) -> np.ndarray:
        """Normalised tokens [B, N, C] -> uint8 images [B, H, W, 3], truncated as in the release."""
        return _to_uint8(self.pixels(x_BNC, size)).cpu().numpy()

    @torch.no_grad()
    def pixels(self, x_BNC: Tensor, size: Size) -> Tensor:
        """Normalised tokens [B, N, C] -> pixels [B, 3, H, W], fp32, clamped to [-1, 1].

        After `vae.enable_tiling()` a picture larger than a tile (`vae.tile_sample_min_size`) takes no more memory
        than one, but looks different: the decoder's group norms see a tile's contrast, not the whole picture's.
        """
        mean, deviation = self._statistics()
        x = x_BNC.to(mean.device, torch.float32) * deviation + mean
        z = unpatchify(x, buckets.grid(size, self.size_multiple)).to(self.vae.dtype)
        return torch.cat([self._decode(rows).clamp(-1, 1) for rows in z.split(_rows_at_once(size))])

    def _decode(self, z_BchW: Tensor) -> Tensor:
        def whole(z: Tensor) -> Tensor:
            return cast(Any, self.vae).decode(z, return_dict=False)[0].float()

        tile = self.vae.tile_latent_min_size
        if self.vae.use_tiling and max(z_BchW.shape[2:]) > tile:
            return decode_in_tiles(whole, z_BchW, tile=tile, factor=self.size_multiple // 2)
        return whole(z_BchW)

    def _posterior_mean(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.vae.device).permute(0, 3, 1, 2).to(self.vae.dtype) / 127.5 - 1
        (posterior,) = self.vae.encode(x, return_dict=False)
        return posterior.mode().float()

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each token channel, fp32 [C]."""
        norm = self.vae.bn
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        return mean.float(), torch.sqrt(variance.float() + self._eps)


def size_multiple(vae_config: Mapping[str, Any]) -> int:
    """The side of one token in pixels: two latent positions, each halved once a level of the autoencoder."""
    return 2 ** len(vae_config["block_out_channels"])


def patchify(z_BchW: Tensor) -> Tensor:
    """Latents [B, c, h, w] -> tokens [B, h / 2 * w / 2, 4 * c]."""
    batch, channels, height, width = z_BchW.shape
    patches = z_BchW.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpatchify(x_BNC: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, N, 4 * c] on a grid (rows, columns) -> latents [B, c, 2 * rows, 2 * columns]."""
    batch, _, channels = x_BNC.shape
    patches = x_BNC.reshape(batch, *grid, channels // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, grid[0] * 2, grid[1] * 2)


def _to_uint8(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3]; the cast truncates."""
    return ((pixels + 1) * 127.5).to(torch.uint8).permute(0, 2, 3, 1)


def _rows_at_once(size: Size) -> int:
    return max(1, PIXELS_AT_ONCE // (size[0] * size[1]))
