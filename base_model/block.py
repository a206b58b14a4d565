"""The block of the Lens transformer: an image and a text stream with their own weights and a joint attention.

Shapes: B samples, N image tokens, P text tokens of all samples without padding, D width, H heads.
"""

from typing import Any, NamedTuple

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
        self._before, self._after = before_attention, after_attention

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
        image, text = self._image_stream(), self._text_stream()
        image_qkv, image_mod = self._before(image, image_BND, time_BD, None, image_turns)
        text_qkv = text_mod = None
        if words_PD is not None:
            text_qkv, text_mod = self._before(text, words_PD, time_BD, layout.owner_P, text_turns)

        image_mixed, text_mixed = joint_attention(image_qkv, text_qkv, layout, image_only=self.is_last)

        image_out = self._after(image, image_BND, image_mixed, image_mod)
        if words_PD is None or text_mod is None or text_mixed is None:
            return image_out, None
        return image_out, self._after(text, words_PD, text_mixed, text_mod)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile what lies before and after the attention, rather than the block as one.

        Attention is one kernel in either case; left out, neither the lengths of the texts nor which block is the
        last one are part of a graph, and the graphs serve all blocks, both streams' sizes and all buckets.
        """
        self._before = torch.compile(before_attention, *args, **kwargs)
        self._after = torch.compile(after_attention, *args, **kwargs)

    def _image_stream(self) -> "Stream":
        attn = self.attn
        return Stream(
            self.img_mod, self.img_norm1, attn.img_qkv, attn.norm_q, attn.norm_k,
            attn.to_out[0], self.img_norm2, self.img_mlp,
        )  # fmt: skip

    def _text_stream(self) -> "Stream":
        attn = self.attn
        return Stream(
            self.txt_mod, self.txt_norm1, attn.txt_qkv, attn.norm_added_q, attn.norm_added_k,
            attn.to_add_out, self.txt_norm2, self.txt_mlp,
        )  # fmt: skip


class Stream(NamedTuple):
    """The layers of one stream of a block, in the order in which they run.

    Looked up at every forward, since adapters put themselves in the place of a layer.
    """

    mod: nn.Module
    norm1: "RMSNorm"
    qkv: nn.Module
    norm_q: "RMSNorm"
    norm_k: "RMSNorm"
    out: nn.Module
    norm2: "RMSNorm"
    mlp: nn.Module


def before_attention(
    stream: Stream, x: Tensor, time_BD: Tensor, owner_P: Tensor | None, turns: Tensor
) -> tuple[QKV, Tensor]:
    """Queries, keys and values [..., H, D / H] of image tokens [B, N, D] or text tokens [P, D], and the modulation.

    The modulation, six chunks of D, is [B, 1, 6 * D] for the image and [P, 6 * D] for the text, whose tokens say
    by `owner_P` which sample they belong to.
    """
    mod_BD = stream.mod(time_BD)
    mod = mod_BD[:, None] if owner_P is None else mod_BD[owner_P]
    shift, scale = mod.chunk(6, dim=-1)[:2]
    qkv = stream.qkv(stream.norm1.modulated(x, scale, shift))
    q, k, v = qkv.unflatten(-1, (3, -1, stream.norm_q.weight.shape[0])).unbind(-3)
    return (rotate(stream.norm_q(q), turns), rotate(stream.norm_k(k), turns), v), mod


def after_attention(stream: Stream, x: Tensor, mixed: Tensor, mod: Tensor) -> Tensor:
    """The stream after its part of the joint attention, `mixed`, and after its MLP."""
    gate1, shift2, scale2, gate2 = mod.chunk(6, dim=-1)[2:]
    x = torch.addcmul(x, gate1, stream.out(mixed))
    return torch.addcmul(x, gate2, stream.mlp(stream.norm2.modulated(x, scale2, shift2)))


class JointAttention(nn.Module):
    """The weights of both streams around their joint attention; q, k, v are the outermost axis of `qkv`."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        head = dim // num_heads
        self.norm_q, self.norm_k = RMSNorm(head, EPS), RMSNorm(head, EPS)
        self.norm_added_q, self.norm_added_k = RMSNorm(head, EPS), RMSNorm(head, EPS)
        self.img_qkv, self.txt_qkv = Linear(dim, 3 * dim), Linear(dim, 3 * dim)
        self.to_out = nn.ModuleList([Linear(dim, dim), nn.Identity()])
        self.to_add_out = Linear(dim, dim)


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
