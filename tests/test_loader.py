"""Batches are functions of seed and step; captions come in the stated shares; bad samples are left out."""

import io
import json

import numpy as np
import torch
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


def test_broken_samples_are_left_out(tmp_path):
    pictures = [Packable(np.full((8, 8, 3), i, np.uint8), TEXTS, {}) for i in range(6)]
    pictures[2] = Packable(pictures[2].image, {"dense": []}, {})
    pack(tmp_path, {"train": pictures})
    assert [int(s.image[0, 0, 0]) for s in read_samples(tmp_path, "train")] == [0, 1, 3, 4, 5]


def test_decoding_makes_rgb_of_what_it_gets():
    buffer = io.BytesIO()
    Image.new("LA", (5, 4), (10, 128)).save(buffer, "PNG")
    crude = {
        "__key__": "k",
        "__restore_key__": (),
        "__subflavors__": {},
        "png": buffer.getvalue(),
        "json": json.dumps({"captions": TEXTS}).encode(),
    }
    assert decode(crude).image.shape == (4, 5, 3)
