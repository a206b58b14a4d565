"""Decoding a large latent in overlapping tiles, so that memory follows the tile and not the picture.

Shapes: B images; h, w latent positions; H, W pixels, `factor` times as many.
"""

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

OVERLAP = 0.25
"""Least share of a tile's side that its neighbour covers too."""


def decode_in_tiles(decode: Callable[[Tensor], Tensor], z_Bchw: Tensor, *, tile: int, factor: int) -> Tensor:
    """`decode`, from latents [B, c, h, w] to pixels [B, 3, H, W], done in square tiles of `tile` latent positions.

    All tiles are whole and evenly spaced, and fade into each other where they overlap. (diffusers' own
    `tiled_decode` cuts from the top left: what is left over, maybe two rows, is decoded without its surroundings.)
    """
    batch, _, height, width = z_Bchw.shape
    total = z_Bchw.new_zeros(batch, 3, height * factor, width * factor, dtype=torch.float32)
    weight = total.new_zeros(total.shape[2:])

    for top, left in product(_starts(height, tile), _starts(width, tile)):
        pixels = decode(z_Bchw[:, :, top : top + tile, left : left + tile])
        down, across = _fade(top, height, tile, factor), _fade(left, width, tile, factor)
        fade = torch.outer(down, across).to(total.device)
        rows = slice(top * factor, top * factor + len(down))
        columns = slice(left * factor, left * factor + len(across))
        total[..., rows, columns] += pixels * fade
        weight[rows, columns] += fade

    return total / weight


def _starts(side: int, tile: int) -> list[int]:
    """Where the fewest tiles that overlap enough begin along a side of the latent."""
    if side <= tile:
        return [0]
    overlap = int(tile * OVERLAP)
    count = math.ceil((side - overlap) / (tile - overlap))
    return [round(index * (side - tile) / (count - 1)) for index in range(count)]


def _fade(start: int, side: int, tile: int, factor: int) -> Tensor:
    """Weight of each pixel of a tile along one side: falling to 0 towards a neighbour, else level."""
    length, level = min(tile, side) * factor, tile * factor * OVERLAP
    position = torch.arange(length) + 0.5
    before = position if start > 0 else torch.full_like(position, level)
    after = length - position if start + tile < side else torch.full_like(position, level)
    return torch.minimum(before, after).clamp(max=level)
