"""The pretraining of a tiny model: it learns, resumes to the bit, and keeps exact statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from base_model.latents import LatentCodec, patchify
from base_model.lens import LensGenerator
from base_model.pretraining import losses
from base_model.pretraining.loader import CaptionedImage, LatentSet
from base_model.pretraining.recipe import RECIPES, PretrainRecipe, Vae
from base_model.pretraining.train import Trainer, make_optimizers
from base_model.pretraining.vae import build_vae, fit_statistics, to_pixels, train_vae
from lens_core.recipes import find_recipe, load_recipe
from lens_core.runs import RunFolder, RunProblem
from lens_rl.shapes.letters import WORDS
from pipelines.data.shapes import samples
from pipelines.pretrain import build_generator, pretrain
from taxonomy.sampler import sample
from taxonomy.tree import load_tree
from tests.tiny import SIZES, tiny_generator

SMALL = ("transformer.steps=12", "transformer.batch_size=16", "transformer.warmup=2", "save_every=5")


def recipe(*overrides):
    return load_recipe(PretrainRecipe, find_recipe("shapes", RECIPES), [*SMALL, *overrides])


def corpus(generator, n=48):
    decoded = [
        CaptionedImage(__key__=str(i), __restore_key__=(), __subflavors__={}, image=s.image, captions=s.captions)
        for i, s in enumerate(samples(n, 0, "train", sizes=SIZES))
    ]
    return LatentSet(iter(decoded), generator.latents)


def train(folder, *overrides, stop_after=None):
    generator = tiny_generator()
    seen = []

    def report(step, row):
        seen.append(row["loss"])
        if step == stop_after:
            raise KeyboardInterrupt

    with RunFolder(folder) as run:
        trainer = Trainer(recipe(*overrides), generator, run)
        try:
            trainer.train(corpus(generator), report)
        except KeyboardInterrupt:
            assert stop_after is not None
    return trainer, seen


def test_the_loss_falls(tmp_path):
    _, seen = train(tmp_path, "transformer.steps=80")
    assert np.mean(seen[-10:]) < 0.8 * np.mean(seen[:5])


def test_resume_equals_uninterrupted_to_the_bit(tmp_path):
    whole, _ = train(tmp_path / "a")
    train(tmp_path / "b", stop_after=7)
    resumed, seen = train(tmp_path / "b")
    assert len(seen) == 7  # from the checkpoint of step 5 on
    for one, other in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(torch.equal(one, other) for one, other in zip(whole.ema, resumed.ema, strict=True))
    for one, other in zip(whole.optimizers, resumed.optimizers, strict=True):
        for index, moments in one.state_dict()["state"].items():
            assert all(torch.equal(moments[k], other.state_dict()["state"][index][k]) for k in moments)


def test_metrics_of_steps_made_again_are_dropped(tmp_path):
    train(tmp_path, stop_after=7)
    with RunFolder(tmp_path) as folder:
        folder.log({"step": 5, "loss": 1.0})
        folder.log({"step": 7, "loss": 1.0})
        trainer = Trainer(recipe(), tiny_generator(), folder)
        assert trainer.step == 5 and trainer.seconds > 0
        assert [row["step"] for row in folder.metrics()] == [5]


def test_a_gradient_that_is_not_finite_stops_before_the_weights(tmp_path):
    with pytest.raises(RunProblem, match=r"gradient of step 1 is (nan|inf)"):
        train(tmp_path, "transformer.sigma_mu=.nan")


def test_muon_takes_block_matrices_and_nothing_else():
    module = tiny_generator().trainable
    muon, adamw = make_optimizers(module, recipe().transformer)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert all(name.startswith("transformer_blocks.") and "_mod." not in name for name in taken)
    assert any("img_qkv" in name for name in taken) and any("txt_mlp.w2" in name for name in taken)
    left = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert taken | left == set(names.values()) and not taken & left


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 100))
def test_unequal_batches_are_weighted_by_their_samples(sizes, seed):
    """The gradient over several batches is that of one batch of all; the mean of means is not."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, generator=random, dtype=torch.float64, requires_grad=True)
    parts = [torch.randn(n, 3, generator=random, dtype=torch.float64) for n in sizes]

    def gradient(loss):
        return torch.autograd.grad(loss, weight)[0]

    union = gradient(torch.cat(parts).matmul(weight).square().mean())
    total = sum(sizes)
    weighted = gradient(sum(losses.sum_over_samples(p.matmul(weight).square(), total) for p in parts))
    torch.testing.assert_close(weighted, union, rtol=1e-9, atol=1e-9)
    if len(set(sizes)) > 1:
        naive = gradient(torch.stack([p.matmul(weight).square().mean() for p in parts]).mean())
        assert (naive - union).abs().max() > 1e-6


VAE = Vae(widths=(8, 8), latent_channels=2, steps=30, batch_size=8, norm_groups=4)


def pictures(n=24):
    found = {}
    for scene in samples(n, 0, "train", sizes=SIZES):
        found.setdefault(scene.image.shape[:2], []).append(scene.image)
    return {size: np.stack(images) for size, images in found.items()}


def test_the_autoencoder_learns_and_its_statistics_are_exact():
    seen = []
    images = pictures()
    vae = train_vae(images, VAE, seed=0, report=lambda _, loss: seen.append(loss))
    assert np.mean(seen[-5:]) < np.mean(seen[:5])
    tokens = torch.cat(
        [patchify(vae.encode(to_pixels(batch), return_dict=False)[0].mode()).flatten(0, 1) for batch in images.values()]
    )
    torch.testing.assert_close(vae.bn.running_mean, tokens.mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vae.bn.running_var, tokens.var(dim=0, correction=0), atol=1e-5, rtol=1e-4)


def test_statistics_do_not_depend_on_how_they_are_batched():
    one, two = build_vae(VAE, seed=0), build_vae(VAE, seed=0)
    images = list(pictures().values())
    fit_statistics(one, images, at_once=3)
    fit_statistics(two, images)
    torch.testing.assert_close(one.bn.running_mean, two.bn.running_mean)
    torch.testing.assert_close(one.bn.running_var, two.bn.running_var)


def test_pixels_are_centred():
    scene = next(samples(1, 0, "train", sizes=SIZES)).image
    pixels = to_pixels(scene[None])
    assert pixels.shape == (1, 3, *scene.shape[:2])
    assert pixels.min() >= -1 and pixels.max() <= 1


def test_every_stage_is_made_once_and_the_model_can_be_loaded(tmp_path, capsys):
    few = ["corpus.train=48", "corpus.validation=12", "vae.steps=3", "transformer.steps=3", "save_every=2"]
    figures = pretrain("shapes", few, tmp_path, quick=True)
    card = (tmp_path / "model" / "README.md").read_text()
    assert figures["corpus"][:16] in card and "48 pictures" in card
    assert set(figures["samples"]) == {"6", "10", "20"}
    assert LensGenerator.load(tmp_path / "model").size_multiple == 4
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "model").rglob("*")}
    assert pretrain("shapes", few, tmp_path, quick=True) == figures
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "model").rglob("*")}
    assert "finished before" in capsys.readouterr().out


def test_the_text_encoder_knows_every_word_of_the_captions_and_of_held_out_prompts():
    pictures = [
        CaptionedImage(__key__="", __restore_key__=(), image=s.image, captions=s.captions)
        for s in samples(800, 0, "train", sizes=SIZES)
    ]
    encoder = build_generator(recipe(), LatentCodec(build_vae(recipe().vae, seed=0)), pictures).text_encoder
    said = [text for one in pictures for texts in one.captions.values() for text in texts]
    asked = [one.text for one in sample(load_tree("shapes"), 300, 0, "test")]
    words = {f'"{word}"' for word in WORDS}
    assert all(any(word in text for text in asked) for word in words)  # words in quotation marks are among them
    unknown = encoder.tokenizer.unk_token_id
    assert not [text for text in [*said, *asked] if unknown in encoder.tokenizer(text)["input_ids"]]
    assert unknown in encoder.tokenizer("a mauve circle")["input_ids"]


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("name: shapes\nseed: 1\n")
    with pytest.raises(RunProblem, match="belongs to a run of another recipe"):
        pretrain("shapes", [], tmp_path, quick=True)
