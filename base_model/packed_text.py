"""Text of different lengths without padding, and the joint attention of images with their own texts.

The tokens of all texts of a batch stand in one row, text after text. No linear layer sees padding, no
attention needs a mask, and a sample without text has no tokens here.

Shapes: B samples, N image tokens of each, L text tokens of one sample, P text tokens of all samples, H heads,
D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

QKV = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values: [B, N, H, D] each of the images, or [P, H, D] each of the texts."""


@dataclass(frozen=True, slots=True, eq=False)
class TextLayout:
    """Where the packed tokens belong. Samples of one length stand together, so that they attend together."""

    order_B: Tensor
    """The samples in the order in which they are computed: by length of text, as they came among equals."""
    owner_P: Tensor
    """Which sample, in that order, a token belongs to."""
    position_P: Tensor
    """Which token of that sample's text it is."""
    longest: int
    groups: tuple[tuple[int, int], ...]
    """(samples, length) for each length, rising."""

    @property
    def uniform(self) -> bool:
        """All texts are of one length, and nothing changes places."""
        return len(self.groups) == 1

    def arrange(self, x_B: Tensor) -> Tensor:
        """[B, ...] in the order of computation."""
        return x_B if self.uniform else x_B[self.order_B]

    def restore(self, x_B: Tensor) -> Tensor:
        """Back from the order of computation."""
        return x_B if self.uniform else x_B[self.order_B.argsort()]

    def pack(self, padded: Tensor) -> Tensor:
        """[B, L, ...] as it came, with padding on the right -> [P, ...]."""
        if self.uniform and padded.shape[1] == self.longest:
            return padded.flatten(0, 1)
        return padded[self.order_B[self.owner_P], self.position_P]


@lru_cache(maxsize=256)
def text_layout(lengths: tuple[int, ...], device: torch.device) -> TextLayout:
    """The layout of texts of these lengths, one a sample. Kept: every step of a batch asks for the same one."""
    with torch.inference_mode(False):
        rising, order_B = torch.sort(torch.tensor(lengths), stable=True)
        owner_P = torch.arange(len(lengths)).repeat_interleave(rising)
        position_P = torch.cat([torch.arange(length) for length in rising.tolist()])
        groups = tuple((len(list(run)), length) for length, run in groupby(rising.tolist()))
        tables = (table.to(device) for table in (order_B, owner_P, position_P))
        return TextLayout(*tables, longest=max(lengths), groups=groups)


def text_lengths(mask_BL: Tensor | None, num_samples: int, padded_length: int) -> tuple[int, ...]:
    """How many tokens each text has. Reading a mask on a GPU waits for the GPU, once a forward.

    Raises ValueError where a mask has padding before a token.
    """
    if mask_BL is None:
        return (padded_length,) * num_samples
    mask = mask_BL.bool().cpu()
    lengths_B = mask.sum(dim=1)
    if not torch.equal(mask, torch.arange(mask.shape[1]) < lengths_B[:, None]):
        raise ValueError("mask: a padded token stands before a real one; padding belongs on the right")
    return tuple(lengths_B.tolist())


def joint_attention(
    image: QKV, text: QKV | None, layout: TextLayout, *, image_only: bool
) -> tuple[Tensor, Tensor | None]:
    """Every token attends to all tokens of its own sample, image first: ([B, N, H * D], [P, H * D]).

    With `image_only` text tokens are looked at but do not look, and None stands for their result.
    """
    if text is None:
        return _attend(*image), None
    if layout.uniform:
        num_samples, num_text = image[0].shape[0], text[0].shape[0]
        per_sample = tuple(part.unflatten(0, (num_samples, num_text // num_samples)) for part in text)
        return _attend_together(image, per_sample, image_only)
    return _attend_by_groups(image, text, layout.groups, image_only)


def _attend_by_groups(
    image: QKV, text: QKV, groups: Sequence[tuple[int, int]], image_only: bool
) -> tuple[Tensor, Tensor | None]:
    """One attention for each length of text."""
    image_parts = zip(*(part.split([samples for samples, _ in groups]) for part in image), strict=True)
    text_parts = zip(*(part.split([samples * length for samples, length in groups]) for part in text), strict=True)
    images, texts = [], []
    for group, image_part, text_part in zip(groups, image_parts, text_parts, strict=True):
        per_sample = tuple(part.unflatten(0, group) for part in text_part)
        image_out, text_out = _attend_together(image_part, per_sample, image_only)
        images.append(image_out)
        texts.append(text_out)
    return torch.cat(images), None if image_only else torch.cat(texts)


def _attend_together(image: Sequence[Tensor], text: Sequence[Tensor], image_only: bool) -> tuple[Tensor, Tensor | None]:
    """image [B, N, H, D] and text [B, L, H, D] as one sequence."""
    num_image = image[0].shape[1]
    k, v = (torch.cat(parts, dim=1) for parts in zip(image[1:], text[1:], strict=True))
    if image_only:
        return _attend(image[0], k, v), None
    mixed = _attend(torch.cat([image[0], text[0]], dim=1), k, v)
    return mixed[:, :num_image].contiguous(), mixed[:, num_image:].flatten(0, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return mixed.transpose(1, 2).flatten(2)
