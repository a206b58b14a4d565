"""Memory: hand-computed numbers of the released size, and the meta device against real tensors."""

import torch
from diffusers import AutoencoderKLFlux2
from torch import nn

from base_model.lens import LORA_TARGETS
from base_model.memory import Batch, decoding_bytes, generation_memory, peak_bytes, training_memory
from base_model.transformer import LensTransformer
from tests.test_lens import CONFIG

SQUARE = Batch(images=1, grid=(64, 64), text_tokens=64)
"""One picture of 1024 x 1024 pixels: 4096 + 64 tokens."""
WEIGHTS = 4_104_225_152
LORA = 48 * 2 * 64 * ((1536 + 4608) + (1536 + 1536))
"""Rank 64, on the four attention projections of a block."""


def train(config, batch, dtype=torch.bfloat16, rank=64, checkpointing=True):
    return training_memory(config, dtype, batch, lora_rank=rank, targets=LORA_TARGETS, checkpointing=checkpointing)


def test_what_is_alive_is_counted_once_and_until_it_is_gone():
    def work():
        a = torch.empty(1000, device="meta")
        b = a + 1
        del a
        c = (b * 2).view(10, 100)[3:]  # 4,000 bytes of b, 4,000 of c, none of its views
        return c + 1  # and 2,800 of the result

    assert peak_bytes(work) == 4000 + 4000 + 2800


def test_the_released_size_generates_in_its_weights_and_little_more():
    memory = generation_memory({}, torch.bfloat16, SQUARE)
    assert memory.weights == 2 * WEIGHTS and memory.trained == 0
    # At the least, a block's image stream, its hidden layer twice, and their product: 12 + 3 * 32 MiB.
    assert 108 * 2**20 < memory.activations < 2**28
    assert memory.total == memory.weights + memory.activations


def test_lora_of_the_released_size_keeps_one_input_a_block():
    memory = train({}, SQUARE)
    assert LORA == 56_623_104
    assert memory.weights == 2 * WEIGHTS
    assert memory.trained == (3 + 1 + 2) * 4 * LORA
    inputs = 48 * (4096 + 64) * 1536 * 2
    assert inputs < memory.activations < 2 * inputs


def test_another_block_costs_its_input_with_checkpointing_and_far_more_without():
    def more(checkpointing):
        three, four = (train({"num_layers": n}, SQUARE, checkpointing=checkpointing) for n in (3, 4))
        return four.activations - three.activations

    assert more(True) == (4096 + 64) * 1536 * 2
    assert more(False) > 15 * more(True)


def test_another_block_costs_generation_nothing_but_its_weights():
    two, three = (generation_memory({"num_layers": n}, torch.bfloat16, SQUARE) for n in (2, 3))
    assert two.activations == three.activations
    assert three.weights - two.weights == 2 * 84_971_776


def test_full_fine_tuning_keeps_every_role_in_fp32():
    memory = train({"num_layers": 1}, SQUARE, dtype=torch.float32, rank=None)
    assert memory.weights == 0
    assert memory.trained == (4 + 1 + 2) * 4 * (84_971_776 + 25_579_904)


def test_the_meta_device_says_what_real_tensors_say():
    """Without checkpointing; on the CPU, whose attention is fused too, and keeps the same."""
    batch = Batch(images=2, grid=(24, 32), text_tokens=16)
    counted = train(CONFIG, batch, dtype=torch.float32, rank=None, checkpointing=False)
    model = LensTransformer(**CONFIG)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    inputs = (torch.randn(2, 768, 32), torch.randn(2, 16, 2, 32), torch.rand(2), (24, 32))
    real = peak_bytes(lambda: model(*inputs).sum().backward())
    assert abs(counted.activations / real - 1) < 0.02
    plain = generation_memory(CONFIG, torch.float32, batch)
    with torch.no_grad():
        assert abs(plain.activations / peak_bytes(lambda: model(*inputs)) - 1) < 0.02


def test_tiles_bound_the_memory_of_decoding():
    """A tile is as large as the pictures that the autoencoder was made for."""
    with torch.device("meta"):
        vae = nn.Module.to(AutoencoderKLFlux2(sample_size=256), torch.float32)

    def decoding(side, tiled):
        return decoding_bytes(vae, (side, side), tiled=tiled)

    last = 128 * 256 * 256 * 4  # one feature map before the last convolution
    assert 2 * last < decoding(256, tiled=False) == decoding(256, tiled=True)
    assert decoding(1024, tiled=False) > 15 * decoding(256, tiled=False)
    assert decoding(1024, tiled=True) < 3 * decoding(256, tiled=False)
