"""Latents: token layout, normalisation, and decoding driven by hand."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLFlux2

from base_model.latents import LatentCodec, patchify, unpatchify
from base_model.memory import peak_bytes
from base_model.tiles import decode_in_tiles


def tiny_vae(widths=(32, 32), latent_channels=32, seed=0):
    torch.manual_seed(seed)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
    )
    vae.bn.running_mean.copy_(torch.randn(4 * latent_channels))
    vae.bn.running_var.copy_(torch.rand(4 * latent_channels) + 0.1)
    return vae


@pytest.fixture(scope="module")
def codec():
    return LatentCodec(tiny_vae())


def test_channel_of_a_token():
    z = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6).float()
    x = patchify(z)
    assert x.shape == (2, 6, 12)
    for c, p1, p2 in ((0, 0, 1), (1, 1, 0), (2, 1, 1)):
        assert x[1, 4, c * 4 + p1 * 2 + p2] == z[1, c, 2 * 1 + p1, 2 * 1 + p2], "token 4 is row 1, column 1"
    assert torch.equal(unpatchify(x, (2, 3)), z)


def test_decode_is_the_autoencoder_by_hand(codec):
    x = torch.randn(2, 6, 128)
    images = codec.decode(x, (8, 12))
    z = x * torch.sqrt(codec.vae.bn.running_var + 1e-4) + codec.vae.bn.running_mean
    grid = z.transpose(1, 2).reshape(2, 32, 2, 2, 2, 3)
    grid = torch.stack([torch.stack([grid[:, :, i, j] for j in (0, 1)], -1) for i in (0, 1)], -2)
    latent = torch.zeros(2, 32, 4, 6)
    for p1 in (0, 1):
        for p2 in (0, 1):
            latent[:, :, p1::2, p2::2] = grid[..., p1, p2]
    with torch.no_grad():
        pixels = codec.vae.decode(latent).sample.clamp(-1, 1).permute(0, 2, 3, 1)
    assert np.array_equal(images, ((pixels + 1) * 127.5).numpy().astype(np.uint8))
    assert images.shape == (2, 8, 12, 3) and images.dtype == np.uint8


def test_encode_is_the_normalised_posterior_mean(codec):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    x = codec.encode(images)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        packed = patchify(codec.vae.encode(pixels).latent_dist.mean)
    expected = (packed - codec.vae.bn.running_mean) / torch.sqrt(codec.vae.bn.running_var + 1e-4)
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(x, codec.encode(images))


@pytest.mark.parametrize("widths, multiple", [((8, 8), 4), ((8, 8, 8), 8), ((8, 8, 8, 8), 16)])
def test_any_downsampling(widths, multiple):
    codec = LatentCodec(tiny_vae(widths, latent_channels=4))
    assert codec.size_multiple == multiple and codec.channels == 16
    size = (2 * multiple, 3 * multiple)
    x = codec.encode(np.zeros((1, *size, 3), dtype=np.uint8))
    assert x.shape == (1, 6, 16)
    assert codec.decode(x, size).shape == (1, *size, 3)


def test_tiles_of_a_local_decoder_make_the_whole_picture():
    """A decoder without surroundings is the same in tiles and whole; the sides leave every kind of remainder."""

    def decode(z):
        return torch.nn.functional.interpolate(z[:, :3], scale_factor=4)

    for side in range(5, 30):
        z = torch.randn(1, 8, side, 11)
        torch.testing.assert_close(decode_in_tiles(decode, z, tile=8, factor=4), decode(z), atol=1e-6, rtol=1e-6)


def test_every_tile_is_whole_and_overlaps():
    seen = []

    def decode(z):
        seen.append(z[0, 0].flatten().tolist())
        return z[:, :3]

    decode_in_tiles(decode, torch.arange(21.0).expand(1, 3, 1, 21), tile=8, factor=1)
    assert [(row[0], row[-1], len(row)) for row in seen] == [(0, 7, 8), (4, 11, 8), (9, 16, 8), (13, 20, 8)]


def decoding_peak(size, *, tiled, rows=1):
    """Peak GiB of the released autoencoder's decoding, without its weights."""
    with torch.device("meta"):
        codec = LatentCodec(AutoencoderKLFlux2())
        x = torch.empty(rows, size[0] * size[1] // 256, 128)
    codec.vae.use_tiling = tiled
    with torch.no_grad():
        return peak_bytes(lambda: codec.pixels(x, size)) / 2**30


def test_memory_of_decoding_is_bounded():
    """By one picture at a time, and with tiling by one tile of 1024 x 1024, whatever the picture."""
    one = decoding_peak((1024, 1024), tiled=False)
    assert 2.5 < one < 3.5
    assert decoding_peak((1024, 1024), tiled=False, rows=4) < 1.1 * one
    assert decoding_peak((2080, 1040), tiled=False) > 2 * one
    assert decoding_peak((2080, 1040), tiled=True) < 1.1 * one


def test_tiling_keeps_a_picture_of_even_contrast():
    """Against decoding whole, on noise, where a tile's contrast is the picture's; better than diffusers' own tiles."""
    codec = LatentCodec(tiny_vae((8, 8, 8), latent_channels=8))
    codec.vae.tile_latent_min_size, codec.vae.tile_sample_min_size = 48, 192
    x, size = torch.randn(1, 26 * 26, 32), (208, 208)
    whole = codec.pixels(x, size)
    mean, deviation = codec._statistics()
    codec.vae.enable_tiling()
    ours = (codec.pixels(x, size) - whole).abs()
    theirs = codec.vae.tiled_decode(unpatchify(x * deviation + mean, (26, 26))).sample.clamp(-1, 1)
    assert 0 < ours.mean() < 0.02 and ours.max() < 0.5 * (theirs - whole).abs().max()
    codec.vae.disable_tiling()
    assert torch.equal(codec.pixels(x, size), whole)


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8, 3)), np.zeros((8, 8, 3), dtype=np.uint8)])
def test_other_arrays_are_refused(codec, images):
    with pytest.raises(ValueError, match="must be uint8"):
        codec.encode(images)


def test_other_sizes_are_refused(codec):
    with pytest.raises(ValueError, match=r"nearest valid: \(8, 8\) and \(12, 8\)"):
        codec.encode(np.zeros((1, 10, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="multiples of 4"):
        codec.decode(torch.zeros(1, 4, 128), (9, 8))
