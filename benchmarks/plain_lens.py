"""Lens as one would put it together from diffusers' and torch's modules: what our transformer is measured against.

The same keys as the checkpoint, text padded to the longest, a mask always, every block run in full.

Shapes: B samples, N image tokens, L text tokens, padding included, F text feature layers, D width.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import AdaLayerNormContinuous, RMSNorm
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope, apply_rotary_emb_qwen
from torch import Tensor, nn

from base_model.transformer import LensTransformer


class PlainLens(nn.Module):
    """Made from a `LensTransformer`, whose weights it shares."""

    def __init__(self, ours: LensTransformer):
        super().__init__()
        config: Any = ours.config
        heads, dim, features = config.num_attention_heads, ours.img_in.out_features, config.enc_hidden_dim
        layers = len(config.selected_layer_index)
        with torch.device("meta"):
            self.img_in = nn.Linear(config.in_channels, dim)
            self.txt_norm = nn.ModuleList(RMSNorm(features, eps=1e-5) for _ in range(layers))
            self.txt_in = nn.Linear(features * layers, dim)
            self.time_text_embed = nn.ModuleDict({"timestep_embedder": TimestepEmbedding(256, dim)})
            self.transformer_blocks = nn.ModuleList(PlainBlock(dim, heads) for _ in range(config.num_layers))
            self.norm_out = AdaLayerNormContinuous(dim, dim, elementwise_affine=False, eps=1e-6)
            self.proj_out = nn.Linear(dim, ours.proj_out.out_features)
        self.wave = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0, scale=1000)
        self.rope = QwenEmbedRope(theta=10000, axes_dim=list(config.axes_dims_rope), scale_rope=True)
        self.load_state_dict(ours.state_dict(), assign=True)

    def forward(
        self, x_BNC: Tensor, text_BLFD: Tensor, sigma_B: Tensor, grid: tuple[int, int], mask_BL: Tensor
    ) -> Tensor:
        """The velocity; arguments as those of `LensTransformer.forward`."""
        image = self.img_in(x_BNC)
        layers = [norm(text_BLFD[:, :, i]) for i, norm in enumerate(self.txt_norm)]
        text = self.txt_in(torch.cat(layers, dim=-1))
        wave = self.wave(sigma_B.to(image.dtype)).to(image.dtype)
        time_BD = self.time_text_embed["timestep_embedder"](wave)
        image_turns, text_turns = self.rope([(1, *grid)], device=image.device, max_txt_seq_len=max(1, text.shape[1]))
        turns = torch.cat([image_turns, text_turns[: text.shape[1]]])
        visible = torch.cat([mask_BL.new_ones(image.shape[:2]), mask_BL], dim=1)[:, None, None]
        for block in self.transformer_blocks:
            image, text = block(image, text, time_BD, turns, visible)
        return self.proj_out(self.norm_out(image, time_BD))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.img_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.txt_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_norm1, self.img_norm2 = RMSNorm(dim, eps=1e-6), RMSNorm(dim, eps=1e-6)
        self.txt_norm1, self.txt_norm2 = RMSNorm(dim, eps=1e-6), RMSNorm(dim, eps=1e-6)
        self.attn = PlainAttention(dim, heads)
        self.img_mlp, self.txt_mlp = PlainMLP(dim), PlainMLP(dim)

    def forward(
        self, image: Tensor, text: Tensor, time_BD: Tensor, turns: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        i_shift1, i_scale1, i_gate1, i_shift2, i_scale2, i_gate2 = self.img_mod(time_BD)[:, None].chunk(6, dim=-1)
        t_shift1, t_scale1, t_gate1, t_shift2, t_scale2, t_gate2 = self.txt_mod(time_BD)[:, None].chunk(6, dim=-1)
        image_out, text_out = self.attn(
            self.img_norm1(image) * (1 + i_scale1) + i_shift1,
            self.txt_norm1(text) * (1 + t_scale1) + t_shift1,
            turns,
            visible,
        )
        image = image + i_gate1 * image_out
        text = text + t_gate1 * text_out
        image = image + i_gate2 * self.img_mlp(self.img_norm2(image) * (1 + i_scale2) + i_shift2)
        text = text + t_gate2 * self.txt_mlp(self.txt_norm2(text) * (1 + t_scale2) + t_shift2)
        return image, text


class PlainAttention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm_q, self.norm_k = RMSNorm(dim // heads, eps=1e-6), RMSNorm(dim // heads, eps=1e-6)
        self.norm_added_q, self.norm_added_k = RMSNorm(dim // heads, eps=1e-6), RMSNorm(dim // heads, eps=1e-6)
        self.img_qkv, self.txt_qkv = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Dropout(0.0)])
        self.to_add_out = nn.Linear(dim, dim)

    def forward(self, image: Tensor, text: Tensor, turns: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        image_q, image_k, image_v = self.img_qkv(image).unflatten(-1, (3, self.heads, -1)).unbind(2)
        text_q, text_k, text_v = self.txt_qkv(text).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q = torch.cat([self.norm_q(image_q), self.norm_added_q(text_q)], dim=1)
        k = torch.cat([self.norm_k(image_k), self.norm_added_k(text_k)], dim=1)
        v = torch.cat([image_v, text_v], dim=1)
        q, k = (cast(Tensor, apply_rotary_emb_qwen(part, turns, use_real=False)) for part in (q, k))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible).transpose(1, 2).flatten(2)
        image, text = mixed[:, : image.shape[1]], mixed[:, image.shape[1] :]
        return self.to_out[1](self.to_out[0](image)), self.to_add_out(text)


class PlainMLP(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        hidden = int(dim / 3 * 8)
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
