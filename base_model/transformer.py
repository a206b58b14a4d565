"""The Lens diffusion transformer: an MMDiT of dual-stream blocks that predicts the flow-matching velocity.

Shapes:
    B samples            N image tokens = grid rows x columns    L text tokens of one sample, padding included
    C token channels     F text feature layers                   P text tokens of all samples, without padding
    E text feature width                                         D width

The keys of the state dict are those of the released checkpoint: 16 tensors outside the blocks and 26 in each.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch import _dynamo as dynamo

from base_model.block import EPS, LensBlock, RMSNorm
from base_model.linear import Linear
from base_model.packed_text import TextLayout, text_layout, text_lengths
from base_model.rope import image_turns, text_turns

TEXT_EPS = 1e-5
TIME_WIDTH = 256
TIME_SCALE = 1000.0
GRAPHS = 64  # more than the compiler can need here; at its own limit of 8 it gives up


class LensTransformer2DModel(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Lens' transformer; the configuration's fields are those of the released `config.json`.

    `inner_dim` is ignored, as in the release: the width is heads * head width. `gate_mlp`, `rms_norm` and
    `multi_layer_encoder_feature` have to be true: no released checkpoint uses the other variants.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("LensBlock",)
    _repeated_blocks = ("LensBlock",)

    @register_to_config
    def __init__(
        self,
        patch_size: int = 2,
        in_channels: int = 128,
        out_channels: int | None = 32,
        num_layers: int = 48,
        attention_head_dim: int = 64,
        num_attention_heads: int = 24,
        inner_dim: int | None = None,
        enc_hidden_dim: int = 2880,
        axes_dims_rope: Sequence[int] = (8, 28, 28),
        gate_mlp: bool = True,
        rms_norm: bool = True,
        multi_layer_encoder_feature: bool = True,
        selected_layer_index: Sequence[int] = (5, 11, 17, 23),
    ):
        super().__init__()
        for name, value in {
            "gate_mlp": gate_mlp,
            "rms_norm": rms_norm,
            "multi_layer_encoder_feature": multi_layer_encoder_feature,
        }.items():
            if not value:
                raise ValueError(f"{name}: only true is supported; no released Lens checkpoint has it false")
        if sum(axes_dims_rope) != attention_head_dim or any(width % 2 for width in axes_dims_rope):
            raise ValueError(
                f"axes_dims_rope: {list(axes_dims_rope)} must be even and add up to attention_head_dim, "
                f"{attention_head_dim}"
            )

        dim = num_attention_heads * attention_head_dim
        self.axes = tuple(axes_dims_rope)
        self.img_in = Linear(in_channels, dim)
        self.txt_norm = nn.ModuleList(RMSNorm(enc_hidden_dim, TEXT_EPS) for _ in selected_layer_index)
        self.txt_in = Linear(enc_hidden_dim * len(selected_layer_index), dim)
        self.time_text_embed = TimeEmbedding(dim)
        self.transformer_blocks = nn.ModuleList(
            LensBlock(dim, num_attention_heads, is_last=layer == num_layers - 1) for layer in range(num_layers)
        )
        self.norm_out = ModulatedNorm(dim)
        self.proj_out = Linear(dim, patch_size**2 * (out_channels or in_channels))
        self.gradient_checkpointing = False

    def forward(
        self,
        x_BNC: Tensor,
        text: Tensor | Sequence[Tensor],
        sigma_B: Tensor,
        grid: Sequence[int],
        mask: Tensor | None = None,
    ) -> Tensor:
        """The velocity noise - x0 at `x_BNC`, [B, N, C] in the token order of x.

        `text` holds the features of F layers of the text encoder: one tensor [B, L, F, E], or F tensors [B,
        L, E]; L may be 0. `sigma_B` [B] is the noise level in [0, 1], not times 1000. `grid` is (rows,
        columns), or (1, rows, columns). `mask` [B, L] is true at real text tokens; padding is on the right. x
        is in the model's dtype; sigma is rounded to it.
        """
        grid = _rows_and_columns(grid, x_BNC.shape[1])
        layers = text.unbind(2) if isinstance(text, Tensor) else text
        if len(layers) != len(self.txt_norm):
            raise ValueError(f"text: {len(layers)} feature layers given, the transformer takes {len(self.txt_norm)}")
        layout = text_layout(text_lengths(mask, *layers[0].shape[:2]), x_BNC.device)

        image = self.img_in(layout.arrange(x_BNC))
        words = self._words(layers, layout)
        time_BD = self.time_text_embed(layout.arrange(sigma_B.to(x_BNC.dtype)))
        image_table = image_turns(grid, self.axes, x_BNC.device)
        text_table = text_turns(grid, layout.longest, self.axes, x_BNC.device)[layout.position_P]

        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                recompute = cast(Any, self._gradient_checkpointing_func)
                image, words = recompute(block, image, words, time_BD, image_table, text_table, layout)
            else:
                image, words = block(image, words, time_BD, image_table, text_table, layout)

        return layout.restore(self.proj_out(self.norm_out(image, time_BD)))

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile the blocks, for training and sampling: seconds to minutes, once, at the first uses.

        The graphs serve all blocks, buckets and text lengths. There are two, before and after the attention, for
        each stream, with or without gradients, for one sample or several, and for a training batch without any
        text; the compiler makes some of them twice. At most 32 are made, and as many again for each state of the
        adapters that is used (trained, old, none).
        """
        dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, GRAPHS)
        self.compile_repeated_blocks(backend=backend, dynamic=True, fullgraph=True)

    def _words(self, layers: Sequence[Tensor], layout: TextLayout) -> Tensor | None:
        """The text tokens [P, D]; None where there are none and no gradient is asked for.

        With gradients an empty text runs through its layers all the same: every weight then gets a gradient, of
        zeros, on every process of a distributed run.
        """
        if layout.longest == 0 and not torch.is_grad_enabled():
            return None
        normed = [norm(layout.pack(layer)) for norm, layer in zip(self.txt_norm, layers, strict=True)]
        return self.txt_in(torch.cat(normed, dim=-1))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator | None = None) -> "LensTransformer2DModel":
        """Start for training from nothing. Ours: the release has no initialisation code.

        Matrices are normal with deviation 1 / sqrt(inputs), biases 0 and gains 1. The modulations and
        `proj_out` are 0, so that every block begins as the identity and the first prediction is 0 (as in
        DiT).
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif "_mod." in name or name.startswith(("norm_out.", "proj_out.")):
                parameter.zero_()
            else:
                device = generator.device if generator is not None else parameter.device
                drawn = torch.randn(parameter.shape, generator=generator, device=device)
                parameter.copy_(drawn / math.sqrt(parameter.shape[1]))
        return self


LensTransformer = LensTransformer2DModel
"""The name to import. The class bears the name that diffusers writes to `config.json` as `_class_name`."""


class ModulatedNorm(nn.Module):
    """The head's LayerNorm without gain, modulated by time: scale first, then shift."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = Linear(dim, 2 * dim)

    def forward(self, x_BND: Tensor, time_BD: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(time_BD))[:, None].chunk(2, dim=-1)
        return torch.addcmul(shift, F.layer_norm(x_BND, x_BND.shape[-1:], eps=EPS), 1 + scale)


class TimeEmbedding(nn.Module):
    """sigma [B] -> [B, D]: 128 cosines, then 128 sines, of 1000 * sigma, through two linear layers."""

    def __init__(self, dim: int):
        super().__init__()
        self.timestep_embedder = nn.ModuleDict({"linear_1": Linear(TIME_WIDTH, dim), "linear_2": Linear(dim, dim)})

    def forward(self, sigma_B: Tensor) -> Tensor:
        wave = time_wave(sigma_B).to(sigma_B.dtype)
        linear = self.timestep_embedder
        return linear["linear_2"](F.silu(linear["linear_1"](wave)))


def time_wave(sigma_B: Tensor) -> Tensor:
    """The sinusoidal embedding of sigma, fp32 [B, 256]; the scale goes on last, as in diffusers."""
    half = TIME_WIDTH // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=sigma_B.device).float() / half)
    angle = TIME_SCALE * (sigma_B.float()[:, None] * frequencies)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def _rows_and_columns(grid: Sequence[int], num_image: int) -> tuple[int, int]:
    *frames, rows, columns = grid
    if frames not in ([], [1]) or rows * columns != num_image:
        raise ValueError(f"grid: {tuple(grid)} does not hold the {num_image} image tokens of x")
    return rows, columns
