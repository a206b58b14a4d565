"""What training and rollouts ask of a text-to-image model: the `Generator` protocol.

Shapes:
    B  samples               N  latent tokens of one image        C  token channels
    H, W  pixels             S  denoising steps

A size is (height, width). Time is sigma in [0, 1]; x = (1 - sigma) * x0 + sigma * noise, velocity v = noise -
x0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lens_core.records import Size

Features = Any
"""Text features of some rows, whatever the generator makes of them: others may only take their `len`."""


class Generator(Protocol):
    """A flow-matching text-to-image model; latents are tokens x_BNC in the generator's own layout."""

    size_multiple: int
    """Height and width must be multiples of this many pixels."""

    trainable: nn.Module
    """What `velocity` calls and training changes; it may be replaced by a wrapper of itself."""

    lora_targets: list[str]
    """Names, or ends of names, of the linear layers that LoRA adapts."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of x_BNC and of the velocity."""
        ...

    def encode(self, texts: Sequence[str]) -> Features:
        """The features of B texts, from the frozen text encoder, without gradient."""
        ...

    def select(self, features: Features, index_B: Tensor | Sequence[int]) -> Features:
        """The rows of an index; repeats are allowed (one prompt, many images)."""
        ...

    def collate(self, parts: list[Features]) -> Features:
        """All rows of several features, in order."""
        ...

    def unconditional(self, n: int) -> Features:
        """The features that guidance and prompt dropout use for no text at all, n rows."""
        ...

    def noise(self, size: Size, seeds: Sequence[int]) -> Tensor:
        """Standard normal x_BNC, one row a seed: an image depends on its own seed, never on its batch."""
        ...

    def velocity(self, x_BNC: Tensor, sigma_B: Tensor, features: Features, size: Size) -> Tensor:
        """v_BNC, with gradient; no guidance."""
        ...

    def guide(self, cond: Tensor, uncond: Tensor, g: float) -> Tensor:
        """Two velocities made one by guidance of strength g, in the manner the model was made for."""
        ...

    def sigmas(self, num_steps: int, size: Size) -> Tensor:
        """The noise levels of a sampling run, fp32 [S + 1], from 1 down to 0."""
        ...

    def images(self, x_BNC: Tensor, size: Size) -> np.ndarray:
        """Clean latents decoded: uint8 [B, H, W, 3]."""
        ...

    def latents(self, images: np.ndarray) -> Tensor:
        """uint8 images [B, H, W, 3] encoded: x_BNC."""
        ...

    def save(self, path: str | Path) -> None:
        """Everything that `load` needs, in the diffusers folder layout, safetensors only."""
        ...

    def identity(self) -> str:
        """A hash of configuration and weights: the key of whatever is computed with the model."""
        ...
