"""The Lens diffusion transformer: an MMDiT of dual-stream blocks that predicts the flow-matching velocity.

Shapes:
    B samples            N image tokens = grid rows x columns    L text tokens    T = N + L, image first
    C token channels     F text feature layers                   D width          H heads
    E text feature width

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

from base_model.rope import rope_table, rotate

BLOCK_EPS = 1e-6  # block norms, query and key norms, final norm
TEXT_EPS = 1e-5
TIME_WIDTH = 256
TIME_SCALE = 1000.0


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
        self.img_in = nn.Linear(in_channels, dim)
        self.txt_norm = nn.ModuleList(RMSNorm(enc_hidden_dim, TEXT_EPS) for _ in selected_layer_index)
        self.txt_in = nn.Linear(enc_hidden_dim * len(selected_layer_index), dim)
        self.time_text_embed = TimeEmbedding(dim)
        self.transformer_blocks = nn.ModuleList(LensBlock(dim, num_attention_heads) for _ in range(num_layers))
        self.norm_out = ModulatedNorm(dim)
        self.proj_out = nn.Linear(dim, patch_size**2 * (out_channels or in_channels))
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
        rows, columns = _rows_and_columns(grid, x_BNC.shape[1])
        layers = text.unbind(2) if isinstance(text, Tensor) else text
        if len(layers) != len(self.txt_norm):
            raise ValueError(f"text: {len(layers)} feature layers given, the transformer takes {len(self.txt_norm)}")

        image = self.img_in(x_BNC)
        normed = [norm(layer) for norm, layer in zip(self.txt_norm, layers, strict=True)]
        words = self.txt_in(torch.cat(normed, dim=-1))
        time_BD = self.time_text_embed(sigma_B.to(x_BNC.dtype))
        turns = rope_table((rows, columns), words.shape[1], self.axes, x_BNC.device)
        visible = _visible(mask, image.shape[1])

        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                recompute = cast(Any, self._gradient_checkpointing_func)
                image, words = recompute(block, image, words, time_BD, turns, visible)
            else:
                image, words = block(image, words, time_BD, turns, visible)

        return self.proj_out(self.norm_out(image, time_BD))

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


class LensBlock(nn.Module):
    """One dual-stream block: image and text each with their own weights, meeting in a joint attention."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.img_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.txt_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_norm1, self.img_norm2 = RMSNorm(dim, BLOCK_EPS), RMSNorm(dim, BLOCK_EPS)
        self.txt_norm1, self.txt_norm2 = RMSNorm(dim, BLOCK_EPS), RMSNorm(dim, BLOCK_EPS)
        self.attn = JointAttention(dim, num_heads)
        self.img_mlp, self.txt_mlp = SwiGLU(dim), SwiGLU(dim)

    def forward(
        self, image_BND: Tensor, text_BLD: Tensor, time_BD: Tensor, turns: Tensor, visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Both streams after the block; `turns` is the rotary table, `visible` the key mask."""
        i_shift1, i_scale1, i_gate1, i_shift2, i_scale2, i_gate2 = self.img_mod(time_BD)[:, None].chunk(6, dim=-1)
        t_shift1, t_scale1, t_gate1, t_shift2, t_scale2, t_gate2 = self.txt_mod(time_BD)[:, None].chunk(6, dim=-1)

        image_out, text_out = self.attn(
            self.img_norm1(image_BND) * (1 + i_scale1) + i_shift1,
            self.txt_norm1(text_BLD) * (1 + t_scale1) + t_shift1,
            turns,
            visible,
        )
        image = image_BND + i_gate1 * image_out
        text = text_BLD + t_gate1 * text_out

        image = image + i_gate2 * self.img_mlp(self.img_norm2(image) * (1 + i_scale2) + i_shift2)
        text = text + t_gate2 * self.txt_mlp(self.txt_norm2(text) * (1 + t_scale2) + t_shift2)
        return image, text


class JointAttention(nn.Module):
    """Bidirectional attention over image and text tokens together, queries and keys normed and rotated."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        head = dim // num_heads
        self.norm_q, self.norm_k = RMSNorm(head, BLOCK_EPS), RMSNorm(head, BLOCK_EPS)
        self.norm_added_q, self.norm_added_k = RMSNorm(head, BLOCK_EPS), RMSNorm(head, BLOCK_EPS)
        self.img_qkv, self.txt_qkv = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])
        self.to_add_out = nn.Linear(dim, dim)

    def forward(
        self, image_BND: Tensor, text_BLD: Tensor, turns: Tensor, visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What each stream takes from the joint attention, before its gate."""
        image_q, image_k, image_v = self._heads(self.img_qkv(image_BND))
        text_q, text_k, text_v = self._heads(self.txt_qkv(text_BLD))

        q_BTHD = rotate(torch.cat([self.norm_q(image_q), self.norm_added_q(text_q)], dim=1), turns)
        k_BTHD = rotate(torch.cat([self.norm_k(image_k), self.norm_added_k(text_k)], dim=1), turns)
        v_BTHD = torch.cat([image_v, text_v], dim=1)
        mixed = F.scaled_dot_product_attention(
            q_BTHD.transpose(1, 2), k_BTHD.transpose(1, 2), v_BTHD.transpose(1, 2), attn_mask=visible
        )
        mixed_BTD = mixed.transpose(1, 2).flatten(2)

        image, text = mixed_BTD.split([image_BND.shape[1], text_BLD.shape[1]], dim=1)
        return self.to_out[0](image), self.to_add_out(text)

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        """[B, T, 3 * D] -> q, k, v, each [B, T, heads, head width]; q, k, v outermost, heads contiguous."""
        return qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(2)


class SwiGLU(nn.Module):
    """w2(SiLU(w1 x) * w3 x), int(dim / 3 * 8) wide, without biases."""

    def __init__(self, dim: int):
        super().__init__()
        hidden = int(dim / 3 * 8)
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class RMSNorm(nn.Module):
    """Root-mean-square norm in fp32, cast to the gain's dtype before the gain is applied."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(self.weight.dtype) * self.weight


class ModulatedNorm(nn.Module):
    """The head's LayerNorm without gain, modulated by time: scale first, then shift."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, x_BND: Tensor, time_BD: Tensor) -> Tensor:
        scale, shift = self.linear(F.silu(time_BD))[:, None].chunk(2, dim=-1)
        return F.layer_norm(x_BND, x_BND.shape[-1:], eps=BLOCK_EPS) * (1 + scale) + shift


class TimeEmbedding(nn.Module):
    """sigma [B] -> [B, D]: 128 cosines, then 128 sines, of 1000 * sigma, through two linear layers."""

    def __init__(self, dim: int):
        super().__init__()
        self.timestep_embedder = nn.ModuleDict(
            {"linear_1": nn.Linear(TIME_WIDTH, dim), "linear_2": nn.Linear(dim, dim)}
        )

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


def _visible(mask_BL: Tensor | None, num_image: int) -> Tensor | None:
    """Which keys each sample may see, bool [B, 1, 1, T]; None where nothing is padded: faster."""
    if mask_BL is None or bool(mask_BL.all()):
        return None
    return F.pad(mask_BL.bool(), (num_image, 0), value=True)[:, None, None]


def _rows_and_columns(grid: Sequence[int], num_image: int) -> tuple[int, int]:
    *frames, rows, columns = grid
    if frames not in ([], [1]) or rows * columns != num_image:
        raise ValueError(f"grid: {tuple(grid)} does not hold the {num_image} image tokens of x")
    return rows, columns
