"""Rotary positions: against diffusers, and by hand."""

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

from base_model.rope import image_positions, image_turns, rotate, text_positions, text_turns

AXES = (8, 28, 28)
CPU = torch.device("cpu")


@pytest.mark.parametrize("grid, length", [((6, 8), 5), ((7, 5), 35), ((65, 130), 415), ((90, 90), 0), ((1, 1), 3)])
def test_tables_are_those_of_qwen_image(grid, length):
    reference = QwenEmbedRope(theta=10000, axes_dim=list(AXES), scale_rope=True)
    image, text = reference([(1, *grid)], device=CPU, max_txt_seq_len=max(length, 1))
    for ours, theirs in ((image_turns(grid, AXES, CPU), image), (text_turns(grid, length, AXES, CPU), text[:length])):
        torch.testing.assert_close(torch.view_as_complex(ours), theirs, atol=1e-6, rtol=0)


def test_positions_are_centred_and_text_follows_the_diagonal():
    positions = image_positions((65, 2)).tolist()
    assert positions[0] == [0, -33, -1] and positions[129] == [0, 31, 0]
    assert text_positions((65, 2), 2).tolist() == [[32] * 3, [33] * 3]
    assert image_positions((64, 1))[:, 1].tolist() == list(range(-32, 32))


def test_rotation_turns_neighbouring_pairs():
    angle = torch.tensor([[torch.pi / 2, 0.0]])
    turns = torch.stack([angle.cos(), angle.sin()], dim=-1)
    turned = rotate(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4), turns)
    torch.testing.assert_close(turned.flatten(), torch.tensor([-2.0, 1.0, 3.0, 4.0]))
    assert rotate(torch.ones(1, 1, 1, 4, dtype=torch.bfloat16), turns).dtype == torch.bfloat16


def test_the_compilers_spelling_is_the_same_rotation(monkeypatch):
    turns = image_turns((3, 5), AXES, CPU)
    x = torch.randn(2, 15, 3, 64, generator=torch.Generator().manual_seed(0))
    product = rotate(x, turns)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(x, turns), product, atol=1e-6, rtol=1e-6)


def test_positions_beyond_the_table_are_refused():
    text_positions((64, 64), 4064)
    with pytest.raises(ValueError, match="shorter prompt"):
        text_positions((64, 64), 4065)
    with pytest.raises(ValueError, match="smaller size"):
        image_positions((1, 8193))


def test_tables_are_kept():
    assert image_turns((4, 4), AXES, CPU) is image_turns((4, 4), AXES, CPU)
    assert text_turns((4, 4), 3, AXES, CPU) is text_turns((4, 4), 3, AXES, CPU)
