"""Packed text: layouts, and attention against one sample at a time."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from base_model.packed_text import joint_attention, text_layout, text_lengths

CPU = torch.device("cpu")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_packing_keeps_every_token_and_its_place(lengths):
    longest = max(lengths)
    padded = torch.arange(len(lengths) * longest).reshape(len(lengths), longest)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    assert text_lengths(mask, len(lengths), longest) == tuple(lengths)
    layout = text_layout(tuple(lengths), CPU)

    samples = layout.arrange(torch.arange(len(lengths)))
    expected = torch.cat([padded[sample, : lengths[sample]] for sample in samples])
    assert torch.equal(layout.pack(padded), expected)
    assert torch.equal(samples[layout.owner_P] * longest + layout.position_P, expected)
    assert torch.equal(layout.restore(samples), torch.arange(len(lengths)))
    assert sum(n for n, _ in layout.groups) == len(lengths)
    assert len(layout.groups) == len(set(lengths))


def test_padding_before_a_token_is_refused():
    with pytest.raises(ValueError, match="belongs on the right"):
        text_lengths(torch.tensor([[True, True], [False, True]]), 2, 2)


@pytest.mark.parametrize("lengths", [(3, 3), (0, 2, 2, 5), (0, 0)])
@pytest.mark.parametrize("image_only", [False, True])
def test_samples_attend_each_to_themselves(lengths, image_only):
    generator = torch.Generator().manual_seed(0)
    layout = text_layout(lengths, CPU)
    image = tuple(torch.randn(len(lengths), 7, 2, 8, generator=generator) for _ in range(3))
    text = tuple(torch.randn(sum(lengths), 2, 8, generator=generator) for _ in range(3))
    image_out, text_out = joint_attention(image, text, layout, image_only=image_only)
    assert (text_out is None) == image_only
    for sample in range(len(lengths)):
        own = layout.owner_P == sample
        q, k, v = (torch.cat([i[sample], t[own]]).transpose(0, 1) for i, t in zip(image, text, strict=True))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        torch.testing.assert_close(image_out[sample], mixed[:7], atol=1e-6, rtol=1e-5)
        if text_out is not None:
            torch.testing.assert_close(text_out[own], mixed[7:], atol=1e-6, rtol=1e-5)
