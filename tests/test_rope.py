"""Rotary positions: against diffusers, and by hand."""

import pytest
import torch
from diffusers.models.transformers.transformer_qwenimage import QwenEmbedRope

from base_model.rope import joint_positions, rope_table, rotate

AXES = (8, 28, 28)
CPU = torch.device("cpu")


@pytest.mark.parametrize("grid, length", [((6, 8), 5), ((7, 5), 35), ((65, 130), 415), ((90, 90), 0), ((1, 1), 3)])
def test_table_is_that_of_qwen_image(grid, length):
    reference = QwenEmbedRope(theta=10000, axes_dim=list(AXES), scale_rope=True)
    image, text = reference([(1, *grid)], device=CPU, max_txt_seq_len=max(length, 1))
    expected = torch.cat([image, text[:length]])
    torch.testing.assert_close(rope_table(grid, length, AXES, CPU), expected, atol=1e-6, rtol=0)


def test_positions_are_centred_and_text_follows_the_diagonal():
    positions = joint_positions((65, 2), 2).tolist()
    assert positions[0] == [0, -33, -1] and positions[129] == [0, 31, 0]
    assert positions[130:] == [[32] * 3, [33] * 3]
    assert joint_positions((64, 1), 0)[:, 1].tolist() == list(range(-32, 32))


def test_rotation_turns_neighbouring_pairs():
    table = torch.polar(torch.ones(1, 2), torch.tensor([[torch.pi / 2, 0.0]]))
    turned = rotate(torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4), table)
    torch.testing.assert_close(turned.flatten(), torch.tensor([-2.0, 1.0, 3.0, 4.0]))
    assert rotate(torch.ones(1, 1, 1, 4, dtype=torch.bfloat16), table).dtype == torch.bfloat16


def test_positions_beyond_the_table_are_refused():
    joint_positions((64, 64), 4064)
    with pytest.raises(ValueError, match="shorter prompt"):
        joint_positions((64, 64), 4065)


def test_tables_are_kept():
    assert rope_table((4, 4), 3, AXES, CPU) is rope_table((4, 4), 3, AXES, CPU)
