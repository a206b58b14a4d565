"""The Lens transformer put together from parts of diffusers and torch, for tests: a peer that others wrote.

What diffusers has is taken from it: rotary table and rotation, time embedding, RMSNorm, the head's modulated norm.
The wiring is that of the specification's section 4. The keys are the checkpoint's, so one state dict fits both.

Shapes: B samples, N image tokens, L text tokens, T = N + L, D width, H heads.
"""

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import AdaLayerNormContinuous, RMSNorm
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope, apply_rotary_emb_qwen
from torch import Tensor, nn


class DiffusersLens(nn.Module):
    """At least one text token: diffusers cannot turn none. What is to have no text masks the one it has.

    `qk_eps` of 1e-5 is the mistake of several ports.
    """

    def __init__(self, num_layers=3, heads=3, enc_hidden=40, channels=128, axes=(8, 28, 28), features=4, qk_eps=1e-6):
        super().__init__()
        head_dim = sum(axes)
        dim = heads * head_dim
        self.rope = QwenEmbedRope(theta=10000, axes_dim=list(axes), scale_rope=True)
        self.wave = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0, scale=1000)
        self.img_in = nn.Linear(channels, dim)
        self.txt_norm = nn.ModuleList(RMSNorm(enc_hidden, 1e-5) for _ in range(features))
        self.txt_in = nn.Linear(features * enc_hidden, dim)
        self.time_text_embed = nn.ModuleDict({"timestep_embedder": TimestepEmbedding(256, dim)})
        self.transformer_blocks = nn.ModuleList(_Block(dim, heads, qk_eps) for _ in range(num_layers))
        self.norm_out = AdaLayerNormContinuous(dim, dim, elementwise_affine=False, eps=1e-6)
        self.proj_out = nn.Linear(dim, channels)

    def forward(self, x_BNC: Tensor, text_BLFE: Tensor, sigma_B: Tensor, grid, mask_BL: Tensor | None = None) -> Tensor:
        image = self.img_in(x_BNC)
        text = self.txt_in(torch.cat([norm(text_BLFE[:, :, i]) for i, norm in enumerate(self.txt_norm)], -1))
        time = self.time_text_embed["timestep_embedder"](self.wave(sigma_B))
        turns = self.rope([(1, *grid)], device=x_BNC.device, max_txt_seq_len=text.shape[1])
        seen = None
        if mask_BL is not None:
            seen = torch.cat([mask_BL.new_ones(x_BNC.shape[:2]), mask_BL], 1)[:, None, None]
        for block in self.transformer_blocks:
            image, text = block(image, text, time, turns, seen)
        return self.proj_out(self.norm_out(image, time))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, qk_eps: float):
        super().__init__()
        self.img_mod, self.txt_mod = (nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim)) for _ in range(2))
        self.img_norm1, self.img_norm2, self.txt_norm1, self.txt_norm2 = (RMSNorm(dim, 1e-6) for _ in range(4))
        self.img_mlp, self.txt_mlp = _GatedMlp(dim), _GatedMlp(dim)
        self.attn = _Attention(dim, heads, qk_eps)

    def forward(self, image, text, time, turns, seen):
        image_first, image_second = self.img_mod(time)[:, None].chunk(2, -1)
        text_first, text_second = self.txt_mod(time)[:, None].chunk(2, -1)
        image_in, image_gate = _modulated(self.img_norm1(image), image_first)
        text_in, text_gate = _modulated(self.txt_norm1(text), text_first)
        image_out, text_out = self.attn(image_in, text_in, turns, seen)
        image, text = image + image_gate * image_out, text + text_gate * text_out
        image_in, image_gate = _modulated(self.img_norm2(image), image_second)
        text_in, text_gate = _modulated(self.txt_norm2(text), text_second)
        return image + image_gate * self.img_mlp(image_in), text + text_gate * self.txt_mlp(text_in)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, eps: float):
        super().__init__()
        self.heads = heads
        self.norm_q, self.norm_k, self.norm_added_q, self.norm_added_k = (RMSNorm(dim // heads, eps) for _ in range(4))
        self.img_qkv, self.txt_qkv = nn.Linear(dim, 3 * dim), nn.Linear(dim, 3 * dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.to_add_out = nn.Linear(dim, dim)

    def forward(self, image, text, turns, seen):
        q, k, v = self._stream(self.img_qkv(image), self.norm_q, self.norm_k, turns[0])
        text_q, text_k, text_v = self._stream(self.txt_qkv(text), self.norm_added_q, self.norm_added_k, turns[1])
        joint = (torch.cat(pair, 1).transpose(1, 2) for pair in ((q, text_q), (k, text_k), (v, text_v)))
        mixed = F.scaled_dot_product_attention(*joint, attn_mask=seen).transpose(1, 2).flatten(2)
        return self.to_out[0](mixed[:, : image.shape[1]]), self.to_add_out(mixed[:, image.shape[1] :])

    def _stream(self, qkv, norm_q, norm_k, turn):
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in qkv.chunk(3, -1))
        q, k = (apply_rotary_emb_qwen(part, turn, use_real=False) for part in (norm_q(q), norm_k(k)))
        return q, k, v


class _GatedMlp(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        width = int(dim / 3 * 8)
        self.w1, self.w3 = nn.Linear(dim, width, bias=False), nn.Linear(dim, width, bias=False)
        self.w2 = nn.Linear(width, dim, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


def _modulated(x, shift_scale_gate):
    shift, scale, gate = shift_scale_gate.chunk(3, -1)
    return x * (1 + scale) + shift, gate
