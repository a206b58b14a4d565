"""Batches are functions of seed and step; captions come in the stated shares; bad samples are left out."""

import io
import json

import numpy as np
import pytest
import torch
from megatron.energon import SkipSample
from PIL import Image

from base_model.pretraining.loader import CaptionedImage, LatentSet, decode, read_samples
from pipelines.data.pack import Packable, pack

TEXTS = {"dense": ["one red circle on a white background", "on a white background, one red circle"], "brief": ["red"]}


def sample(number, size=(8, 8), captions=None):
    image = np.full((*size, 3), number % 256, np.uint8)
    return CaptionedImage(
        __key__=str(number), __restore_key__=(), __subflavors__={}, image=image, captions=captions or TEXTS
    )


def latents(images):
    """A stand-in for the encoder that keeps who is who: the grey of a picture is its latent."""
    return torch.from_numpy(images[:, :1, :1, :1].astype(np.float32)).reshape(len(images), 1, 1)


def png_of(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def crude(png, description):
    """A sample as it comes out of a shard."""
    keys = {"__key__": "k", "__restore_key__": (), "__subflavors__": {}}
    return {**keys, "png": png, "json": json.dumps(description).encode()}


def corpus(n=30):
    return LatentSet((sample(i, (8, 8) if i % 3 else (8, 16)) for i in range(n)), latents)


def test_a_batch_is_a_function_of_seed_and_step():
    one, two = corpus().batch(7, size=6, seed=1), corpus().batch(7, size=6, seed=1)
    assert torch.equal(one.x0_BNC, two.x0_BNC)
    assert one.texts == two.texts
    assert any(not torch.equal(one.x0_BNC, corpus().batch(step, size=6, seed=1).x0_BNC) for step in (8, 9, 10))


def test_a_batch_has_one_bucket_and_no_sample_twice():
    for step in range(20):
        batch = corpus().batch(step, size=6, seed=0)
        greys = batch.x0_BNC.flatten().tolist()
        assert len(set(greys)) == len(greys) == 6
        assert all((grey % 3 == 0) == (batch.size == (8, 16)) for grey in greys)


def test_captions_come_in_the_stated_shares():
    data = corpus()
    texts = [
        text
        for step in range(200)
        for text in data.batch(step, size=10, seed=0, dense_share=0.75, no_text_share=0.2).texts
    ]
    shares = [texts.count(""), texts.count("red"), sum(text in TEXTS["dense"] for text in texts)]
    np.testing.assert_allclose(np.array(shares) / len(texts), [0.2, 0.2, 0.6], atol=0.03)


def test_validation_sees_every_sample_once():
    greys = [grey for batch in corpus().batches(4, seed=0) for grey in batch.x0_BNC.flatten().tolist()]
    assert sorted(greys) == list(range(30))


def test_bad_samples_are_left_out_counted_and_named(tmp_path):
    pictures = [Packable(np.full((8, 8, 3), i, np.uint8), TEXTS, {}) for i in range(6)]
    pictures[2] = Packable(pictures[2].image, {"dense": []}, {})
    pack(tmp_path, {"train": pictures})
    skipped = []
    read = read_samples(tmp_path, "train", skipped=skipped)
    assert [int(s.image[0, 0, 0]) for s in read] == [0, 1, 3, 4, 5]
    assert skipped == ["train-000000-000002: ValueError: no caption"]


@pytest.mark.parametrize("keep", [0, 20, 60, 150, 400])
def test_a_picture_cut_short_is_skipped(keep):
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with pytest.raises(SkipSample):
        decode(crude(png_of(Image.fromarray(picture))[:keep], {"captions": TEXTS}))


@pytest.mark.parametrize("description", [{}, [], {"captions": None}, {"captions": ["red"]}, {"captions": {}}])
def test_a_description_without_captions_is_skipped(description):
    with pytest.raises(SkipSample):
        decode(crude(png_of(Image.new("RGB", (8, 8))), description))


def test_decoding_makes_rgb_of_what_it_gets():
    grey = png_of(Image.new("LA", (5, 4), (10, 128)))
    assert decode(crude(grey, {"captions": TEXTS})).image.shape == (4, 5, 3)
