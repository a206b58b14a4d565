"""Rotary positions of Lens: centred frame, height and width; the text on the diagonal beyond the image.

Equal to diffusers' `QwenEmbedRope(theta=10000, axes_dim=axes, scale_rope=True)`, image tokens first.

Shapes: T = N + L joint tokens (image, then text), H heads, D head width, D / 2 rotated pairs.
"""

from functools import lru_cache

import torch
from torch import Tensor

THETA = 10000.0
MAX_POSITION = 4096


@lru_cache(maxsize=64)
def rope_table(grid: tuple[int, int], text_length: int, axes: tuple[int, ...], device: torch.device) -> Tensor:
    """Unit complex numbers e^(i * angle) by which each pair of channels turns: complex64 [T, D / 2].

    `grid` is (rows, columns) of image tokens and `axes` the channels of each axis, for Lens (8, 28, 28).
    Kept, since every block of every step asks for the same one; made outside inference mode, so that training
    may use it too.
    """
    with torch.inference_mode(False), torch.no_grad():
        positions_T3 = joint_positions(grid, text_length)
        angles = [torch.outer(positions_T3[:, i], _frequencies(width)) for i, width in enumerate(axes)]
        angle_TD = torch.cat(angles, dim=1)
        return torch.polar(torch.ones_like(angle_TD), angle_TD).to(device)


def joint_positions(grid: tuple[int, int], text_length: int) -> Tensor:
    """(frame, height, width) of every joint token, fp32 [T, 3].

    Image rows and columns are centred; an odd side has its extra position on the negative side. Text token j
    stands at max(rows // 2, columns // 2) + j on all three axes.
    """
    rows, columns = grid
    text_start = max(rows // 2, columns // 2)
    if text_start + text_length > MAX_POSITION or max(rows, columns) > 2 * MAX_POSITION:
        raise ValueError(
            f"a grid of {rows} x {columns} tokens with {text_length} text tokens needs positions beyond "
            f"{MAX_POSITION}; take a smaller size or a shorter prompt"
        )
    height = (torch.arange(rows) - (rows - rows // 2)).repeat_interleave(columns)
    width = (torch.arange(columns) - (columns - columns // 2)).repeat(rows)
    image_N3 = torch.stack([torch.zeros_like(height), height, width], dim=1)
    text_L3 = (text_start + torch.arange(text_length))[:, None].expand(-1, 3)
    return torch.cat([image_N3, text_L3]).float()


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the interleaved pairs (x[2j], x[2j + 1]) of x [B, T, H, D] by table [T, D / 2], in fp32.

    One complex product: on CPU it takes a quarter of the time of the same thing spelled with cosines and
    sines.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[:, None]).flatten(-2).to(x.dtype)


def _frequencies(width: int) -> Tensor:
    """THETA^(-2k / width) for k < width / 2."""
    return 1.0 / THETA ** (torch.arange(0, width, 2).float() / width)
