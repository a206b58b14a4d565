"""Rotary positions of Lens: centred frame, height and width; the text on the diagonal beyond the image.

Equal to diffusers' `QwenEmbedRope(theta=10000, axes_dim=axes, scale_rope=True)`.

Shapes: N image tokens = grid rows x columns, L text tokens, T tokens of any sort, H heads, D head width,
D / 2 rotated pairs. A table of turns holds (cosine, sine) of each pair's angle, fp32 [T, D / 2, 2].
"""

from functools import lru_cache

import torch
from torch import Tensor

THETA = 10000.0
MAX_POSITION = 4096


@lru_cache(maxsize=64)
def image_turns(grid: tuple[int, int], axes: tuple[int, ...], device: torch.device) -> Tensor:
    """The turns [N, D / 2, 2] of an image's tokens; `axes` are the channels of each axis, for Lens (8, 28, 28).

    Kept, since every step of a bucket asks for the same table.
    """
    return _turns(image_positions(grid), axes, device)


@lru_cache(maxsize=256)
def text_turns(grid: tuple[int, int], length: int, axes: tuple[int, ...], device: torch.device) -> Tensor:
    """The turns [L, D / 2, 2] of the text tokens that go with an image of this grid. Kept as well."""
    return _turns(text_positions(grid, length), axes, device)


def image_positions(grid: tuple[int, int]) -> Tensor:
    """(frame, height, width) of every image token, fp32 [N, 3].

    Rows and columns are centred; an odd side has its extra position on the negative side.
    """
    rows, columns = grid
    if max(rows, columns) > 2 * MAX_POSITION:
        raise ValueError(
            f"a grid of {rows} x {columns} tokens needs positions beyond {MAX_POSITION}; take a smaller size"
        )
    height = (torch.arange(rows) - (rows - rows // 2)).repeat_interleave(columns)
    width = (torch.arange(columns) - (columns - columns // 2)).repeat(rows)
    return torch.stack([torch.zeros_like(height), height, width], dim=1).float()


def text_positions(grid: tuple[int, int], length: int) -> Tensor:
    """Text token j stands at max(rows // 2, columns // 2) + j on all three axes: fp32 [L, 3]."""
    start = max(grid) // 2
    if start + length > MAX_POSITION:
        raise ValueError(
            f"a grid of {grid[0]} x {grid[1]} tokens with {length} text tokens needs positions beyond "
            f"{MAX_POSITION}; take a smaller size or a shorter prompt"
        )
    return (start + torch.arange(length))[:, None].expand(-1, 3).float()


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the interleaved pairs (x[2j], x[2j + 1]) of x [..., T, H, D] by turns [T, D / 2, 2], in fp32.

    Eagerly this is one complex product, on the CPU four times as fast as the same thing spelled out; the
    compiler, which has no complex numbers, is given the spelling.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        (a, b), (cosine, sine) = pairs.unbind(-1), turns[:, None].unbind(-1)
        turned = torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns)[:, None])
    return turned.flatten(-2).to(x.dtype)


def _turns(positions_T3: Tensor, axes: tuple[int, ...], device: torch.device) -> Tensor:
    """Made outside inference mode, so that a table made while sampling serves training too."""
    with torch.inference_mode(False), torch.no_grad():
        angles = [torch.outer(positions_T3[:, i], _frequencies(width)) for i, width in enumerate(axes)]
        angle_TD = torch.cat(angles, dim=1)
        return torch.stack([angle_TD.cos(), angle_TD.sin()], dim=-1).to(device)


def _frequencies(width: int) -> Tensor:
    """THETA^(-2k / width) for k < width / 2."""
    return 1.0 / THETA ** (torch.arange(0, width, 2).float() / width)
