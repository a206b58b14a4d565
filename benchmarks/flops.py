"""Floating-point operations of the Lens transformer, counted from tokens: image tokens meet image weights only.

A multiplication and an addition are two. Norms, rotations and activations are left out, as is usual.
"""

from collections.abc import Sequence
from typing import Any

from base_model.transformer import TIME_WIDTH, LensTransformer

TRAINING = 3
"""A forward and its backward, in forwards: the backward multiplies twice as much. Recomputation is not counted."""


def forward_flops(model: LensTransformer, num_image: int, text_lengths: Sequence[int]) -> float:
    """One forward over `len(text_lengths)` samples of `num_image` tokens each, without what is never computed.

    Left out are padding, the text stream after the last attention, and the text's modulation where no sample has
    any text.
    """
    config: Any = model.config
    dim, blocks = model.img_in.out_features, config.num_layers
    samples, num_text = len(text_lengths), sum(text_lengths)
    qkv, out, mlp = 3 * dim**2, dim**2, 3 * dim * int(dim / 3 * 8)

    image = (
        num_image
        * samples
        * (blocks * (qkv + out + mlp) + dim * (model.img_in.in_features + model.proj_out.out_features))
    )
    text = num_text * (blocks * qkv + (blocks - 1) * (out + mlp) + model.txt_in.in_features * dim)
    joint = [num_image + length for length in text_lengths]
    attention = sum(2 * dim * total * ((blocks - 1) * total + num_image) for total in joint)
    streams = 2 if num_text else 1
    time = samples * (blocks * streams * 6 * dim**2 + TIME_WIDTH * dim + dim**2 + 2 * dim**2)
    return 2.0 * (image + text + attention + time)
