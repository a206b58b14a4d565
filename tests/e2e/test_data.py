"""From a folder of pictures to a model that has been trained on them: clean, caption, pack, twenty steps."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from base_model.pretraining.loader import read_samples
from pipelines.cli import app
from tests.tiny_vlm import SEEN
from tests.vlm_server import NAME, serving

PICTURES = 24


def lens_rl(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def write_folder(folder):
    """Tinted noise, which is sharp and full; and what cleaning is there to find."""
    folder.mkdir()
    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        colour = list(SEEN)[number % len(SEEN)]
        noise = rng.integers(-90, 91, (400 + 40 * (number % 3), 440, 3))
        pixels = np.clip(np.array(SEEN[colour]) * 0.8 + 25 + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}-{colour}.jpg", quality=90)
    whole = (folder / "00-red.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGB", (64, 64), "red").save(folder / "small.png")
    Image.new("RGB", (500, 500), "black").save(folder / "dark.png")
    Image.open(folder / "01-green.jpg").save(folder / "twin.jpg", quality=60)
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory, tiny_vlm):
    top = tmp_path_factory.mktemp("data")
    lens_rl("data", "clean", write_folder(top / "photos"), "--out", top / "cleaned")
    with serving(tiny_vlm) as server:
        model = ("--model", f"model={NAME}", "--model", f"base_url={server.url}")
        lens_rl("data", "caption", top / "cleaned", "--out", top / "captions", *model)
    sizes = ("--size", "32x32", "--size", "32x28")
    lens_rl("data", "pack", top / "captions", "--out", top / "shards", *sizes, "--validation", "0.2")
    return top


def test_what_cleaning_dropped_is_neither_captioned_nor_packed(packed):
    manifest = json.loads((packed / "shards" / "manifest.json").read_text())
    assert manifest["samples"] == PICTURES and not manifest["left_out"]
    keys = {json.loads(line)["key"] for line in (packed / "captions" / "captions.jsonl").read_text().splitlines()}
    assert {key.split("-")[0] for key in keys} - {"twin.jpg"} <= {f"{number:02d}" for number in range(PICTURES)}
    assert len(keys & {"twin.jpg", "01-green.jpg"}) == 1


def test_each_picture_has_the_caption_of_what_the_model_saw_in_it(packed):
    seen = 0
    for split in ("train", "validation"):
        for sample in read_samples(packed / "shards", split):
            middle = sample.image.reshape(-1, 3).mean(0)
            colour = min(SEEN, key=lambda name: float(np.abs(middle - np.array(SEEN[name])).sum()))
            seen += colour in sample.captions["dense"][0]
    assert seen >= 0.9 * PICTURES


@pytest.mark.parametrize(
    "shards, message",
    [
        ("captions", r"captions has no manifest\.json: pack it, to the end, with `lens-rl data pack`"),
        ("whole", r"whole has no validation pictures: .* --validation above 0"),
    ],
)
def test_what_cannot_be_trained_on_is_told_first(packed, shards, message):
    lens_rl("data", "pack", packed / "captions", "--out", packed / "whole", "--size", "32x32", "--validation", "0")
    words = ["pretrain", "shapes", "--out", packed / "none", "--set", f"corpus.shards={packed / shards}"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1 and re.search(message, " ".join(result.output.split())), result.output


def test_twenty_steps_of_pretraining(packed):
    out = packed / "pretrain"
    small = (
        "vae.steps=20",
        "vae.batch_size=8",
        "transformer.steps=20",
        "transformer.batch_size=8",
        "transformer.warmup=2",
    )
    settings = [word for one in (f"corpus.shards={packed / 'shards'}", *small) for word in ("--set", one)]
    lens_rl("pretrain", "shapes", "--out", out, *settings)
    figures = json.loads((out / "model" / "figures.json").read_text())
    shards = json.loads((packed / "shards" / "manifest.json").read_text())
    assert figures["corpus"] == shards["corpus_sha256"] and figures["skipped"] == 0
    assert math.isfinite(figures["flow_loss"]["all"]) and figures["reconstructions"]["n"] > 0
    assert "A small base model" in (out / "model" / "README.md").read_text()
    pictures = lens_rl("generate", "a red square", "--model", out / "model", "--out", packed / "made", "--steps", "2")
    assert "made" in pictures
