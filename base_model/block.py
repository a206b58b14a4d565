"""The block of the Lens transformer: an image and a text stream with their own weights and a joint attention.

Shapes: B samples, N image tokens, P text tokens of all samples without padding, D width, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.linear import Linear
from base_model.packed_text import QKV, TextLayout, joint_attention
from base_model.rope import rotate

EPS = 1e-6  # block norms, query and key norms, final norm


class LensBlock(nn.Module):
    """One dual-stream block.

    The text that leaves the last block reaches no output, so that block leaves it out: its `to_add_out`,
    `norm_added_q`, `txt_norm2` and `txt_mlp` are in the checkpoint, but never run and never get a gradient.
    """

    def __init__(self, dim: int, num_heads: int, *, is_last: bool = False):
        super().__init__()
        self.is_last = is_last
        self.img_mod = nn.Sequential(nn.SiLU(), Linear(dim, 6 * dim))
        self.txt_mod = nn.Sequential(nn.SiLU(), Linear(dim, 6 * dim))
        self.img_norm1, self.img_norm2 = RMSNorm(dim, EPS), RMSNorm(dim, EPS)
        self.txt_norm1, self.txt_norm2 = RMSNorm(dim, EPS), RMSNorm(dim, EPS)
        self.attn = JointAttention(dim, num_heads)
        self.img_mlp, self.txt_mlp = SwiGLU(dim), SwiGLU(dim)

    def forward(
        self,
        image_BND: Tensor,
        words_PD: Tensor | None,
        time_BD: Tensor,
        image_turns: Tensor,
        text_turns: Tensor,
        layout: TextLayout,
    ) -> tuple[Tensor, Tensor | None]:
        """Both streams after the block; without text, and from the last block, None stands for the text's."""
        i_shift1, i_scale1, i_gate1, i_shift2, i_scale2, i_gate2 = self.img_mod(time_BD)[:, None].chunk(6, dim=-1)
        image_qkv = self.attn.of_image(self.img_norm1.modulated(image_BND, i_scale1, i_shift1), image_turns)
        text_qkv = text_mod = None
        if words_PD is not None:
            text_mod = self.txt_mod(time_BD)[layout.owner_P].chunk(6, dim=-1)
            text_qkv = self.attn.of_text(self.txt_norm1.modulated(words_PD, text_mod[1], text_mod[0]), text_turns)

        image_mixed, text_mixed = joint_attention(image_qkv, text_qkv, layout, image_only=self.is_last)

        image = torch.addcmul(image_BND, i_gate1, self.attn.to_out[0](image_mixed))
        image = torch.addcmul(image, i_gate2, self.img_mlp(self.img_norm2.modulated(image, i_scale2, i_shift2)))
        if words_PD is None or text_mod is None or text_mixed is None:
            return image, None
        _, _, t_gate1, t_shift2, t_scale2, t_gate2 = text_mod
        words = torch.addcmul(words_PD, t_gate1, self.attn.to_add_out(text_mixed))
        words = torch.addcmul(words, t_gate2, self.txt_mlp(self.txt_norm2.modulated(words, t_scale2, t_shift2)))
        return image, words


class JointAttention(nn.Module):
    """The weights on both sides of the joint attention; queries and keys are normed, then rotated."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        head = dim // num_heads
        self.norm_q, self.norm_k = RMSNorm(head, EPS), RMSNorm(head, EPS)
        self.norm_added_q, self.norm_added_k = RMSNorm(head, EPS), RMSNorm(head, EPS)
        self.img_qkv, self.txt_qkv = Linear(dim, 3 * dim), Linear(dim, 3 * dim)
        self.to_out = nn.ModuleList([Linear(dim, dim), nn.Identity()])
        self.to_add_out = Linear(dim, dim)

    def of_image(self, image_BND: Tensor, turns: Tensor) -> QKV:
        """Queries, keys and values [B, N, H, D / H]."""
        q, k, v = self._heads(self.img_qkv(image_BND))
        return rotate(self.norm_q(q), turns), rotate(self.norm_k(k), turns), v

    def of_text(self, words_PD: Tensor, turns: Tensor) -> QKV:
        """Queries, keys and values [P, H, D / H]."""
        q, k, v = self._heads(self.txt_qkv(words_PD))
        return rotate(self.norm_added_q(q), turns), rotate(self.norm_added_k(k), turns), v

    def _heads(self, qkv: Tensor) -> QKV:
        """[..., 3 * D] -> three of [..., H, D / H]; q, k, v are the outermost axis, heads are contiguous."""
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        return q, k, v


class SwiGLU(nn.Module):
    """w2(SiLU(w1 x) * w3 x), int(dim / 3 * 8) wide, without biases."""

    def __init__(self, dim: int):
        super().__init__()
        hidden = int(dim / 3 * 8)
        self.w1, self.w3 = Linear(dim, hidden, bias=False), Linear(dim, hidden, bias=False)
        self.w2 = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class RMSNorm(nn.Module):
    """Root-mean-square norm in fp32, cast to the gain's dtype before the gain is applied."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.normed(x) * self.weight

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """norm(x) * (1 + scale) + shift, the gain and the scale multiplied first: they are small, x is not."""
        return torch.addcmul(shift, self.normed(x), self.weight * (1 + scale))

    def normed(self, x: Tensor) -> Tensor:
        """Without the gain. `rms_norm` computes in fp32 whatever it is given, and rounds once."""
        return F.rms_norm(x, self.weight.shape, None, self.eps).to(self.weight.dtype)
