"""`lens-rl pretrain`: corpus, autoencoder, transformer, measures, model card. Each stage is made once.

OUT/
  shards/        training shards
  vae/           the autoencoder, diffusers layout
  transformer/   checkpoints and metrics of the transformer run
  model/         the finished model in the layout of Lens, with its card
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

from base_model.latents import LatentCodec
from base_model.lens import LensGenerator
from base_model.pretraining.loader import CaptionedImage, LatentSet, read_samples
from base_model.pretraining.recipe import RECIPES, PretrainRecipe
from base_model.pretraining.train import Trainer
from base_model.pretraining.vae import train_vae
from base_model.text_features import tiny_text_encoder
from base_model.transformer import LensTransformer
from lens_core.progress import ProgressDisplay
from lens_core.recipes import dump_recipe, find_recipe, load_recipe
from lens_core.records import Size
from lens_core.runs import RunFolder, RunProblem, whole_folder
from lens_core.seeds import seed_of
from lens_core.templates import Template
from pipelines.data.pack import MANIFEST
from pipelines.data.shapes import pack_shapes
from pipelines.measure import measure_psnr, measure_reconstructions, measure_samples

CARD = Path(__file__).parent / "model_card.md.j2"
PACKED_CARD = CARD.with_name("packed_card.md.j2")
"""Of a model trained on shards of the user's own."""
FIGURES = "figures.json"
VAE_TIME = "time.json"

QUICK = (
    "corpus.train=600",
    "corpus.validation=120",
    "vae.steps=60",
    "transformer.steps=60",
    "transformer.warmup=10",
    "save_every=20",
)
"""Enough to see every stage work; the result draws nothing yet."""


def pretrain(name: str, overrides: list[str], out: Path, *, quick: bool) -> dict[str, Any]:
    """Run every stage that `out` does not hold yet; returns the figures of the model card.

    Raises RecipeProblem, RunProblem or ShardProblem with what to mend.
    """
    recipe = load_recipe(PretrainRecipe, find_recipe(name, RECIPES), [*(QUICK if quick else ()), *overrides])
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    with RunFolder(out) as folder:
        if not (finished := out / "model" / FIGURES).is_file():
            _refuse_unpacked(recipe.corpus.shards)  # before the folder becomes this recipe's
        folder.keep_config(dump_recipe(recipe))
        if finished.is_file():
            print(f"model: {finished.parent} (finished before)")
            return json.loads(finished.read_text(encoding="utf-8"))
        shards, corpus = _corpus(recipe, out)
        skipped: list[str] = []
        samples = list(read_samples(shards, "train", skipped=skipped))
        held_out = list(read_samples(shards, "validation", skipped=skipped))
        _tell(skipped)
        codec = LatentCodec(_vae(recipe, out / "vae", samples))
        generator = build_generator(recipe, codec, samples)
        figures = _train(recipe, generator, folder, samples, held_out)
        figures |= {"corpus": corpus["corpus_sha256"], "skipped": len(skipped), "machine": _machine()}
        figures |= json.loads((out / "vae" / VAE_TIME).read_text(encoding="utf-8"))
        images = [sample.image for sample in held_out]
        if recipe.corpus.shards is None:
            figures["reconstructions"] = measure_reconstructions(codec, images)
            figures["samples"] = measure_samples(generator, recipe.corpus.sizes, prompts=16 if quick else 256)
        else:  # nobody knows what its pictures should show
            figures["reconstructions"] = {"n": len(images), "psnr": measure_psnr(codec, images)}
        _finish(recipe, generator, figures, out / "model")
    print(f"model: {out / 'model'}")
    return figures


def _corpus(recipe: PretrainRecipe, out: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the shards, and their manifest."""
    corpus = recipe.corpus
    if corpus.shards is None:
        shards = out / "shards"
        return shards, pack_shapes(
            shards,
            train=corpus.train,
            validation=corpus.validation,
            seed=recipe.seed,
            sizes=corpus.sizes,
            flawed_share=corpus.flawed_share,
        )
    shards = Path(corpus.shards)
    return shards, json.loads((shards / MANIFEST).read_text(encoding="utf-8"))


def _refuse_unpacked(shards: str | None) -> None:
    """Raises RunProblem for shards that are not packed to the end, or leave nothing to train on or to hold out."""
    if shards is None:
        return
    manifest = Path(shards) / MANIFEST
    if not manifest.is_file():
        raise RunProblem(f"corpus.shards: {shards} has no {MANIFEST}: pack it, to the end, with `lens-rl data pack`")
    packed = json.loads(manifest.read_text(encoding="utf-8"))["shards"]
    if absent := {"train", "validation"} - {shard["split"] for shard in packed}:
        raise RunProblem(
            f"corpus.shards: {shards} has no {' and no '.join(sorted(absent))} pictures: pack two pictures or more "
            "into another folder, with a --validation above 0"
        )


def build_generator(recipe: PretrainRecipe, codec: LatentCodec, samples: list[CaptionedImage]) -> LensGenerator:
    """An untrained Lens around a trained autoencoder; its vocabulary is that of the captions."""
    words = sorted({word for s in samples for texts in s.captions.values() for text in texts for word in _words(text)})
    encoder = tiny_text_encoder(words, hidden=recipe.text_width, layers=recipe.text_layers, seed=recipe.seed)
    transformer = LensTransformer(**recipe.transformer.config)
    transformer.init_weights(torch.Generator().manual_seed(seed_of(recipe.seed, "transformer")))
    return LensGenerator(transformer, codec, encoder, recipe.transformer.scheduler)


def _tell(skipped: list[str]) -> None:
    """Name the samples that were left out: a few of many is enough to find the cause."""
    if skipped:
        few = "\n  ".join(skipped[:5] + ["..."] * (len(skipped) > 5))
        print(f"left out {len(skipped)} samples that cannot be decoded:\n  {few}", file=sys.stderr)


def _words(text: str) -> list[str]:
    """The words of a caption, without the punctuation that the tokenizer sets apart."""
    return re.findall(r"\w+", text.lower())


def _vae(recipe: PretrainRecipe, path: Path, samples: list[CaptionedImage]) -> AutoencoderKLFlux2:
    if path.is_dir():
        return AutoencoderKLFlux2.from_pretrained(path)
    images: dict[Size, list[np.ndarray]] = {}
    for sample in samples:
        images.setdefault((sample.image.shape[0], sample.image.shape[1]), []).append(sample.image)
    started = time.perf_counter()
    with ProgressDisplay("autoencoder", recipe.vae.steps) as display:
        vae = train_vae(
            {size: np.stack(pictures) for size, pictures in images.items()},
            recipe.vae,
            seed=recipe.seed,
            report=lambda step, loss: display.update(step, f"loss {loss:.4f}"),
        )
    with whole_folder(path) as draft:
        vae.save_pretrained(draft)
        (draft / VAE_TIME).write_text(json.dumps({"vae_seconds": time.perf_counter() - started}), encoding="utf-8")
    return vae


def _train(
    recipe: PretrainRecipe,
    generator: LensGenerator,
    folder: RunFolder,
    samples: list[CaptionedImage],
    held_out: list[CaptionedImage],
) -> dict[str, Any]:
    """Train the transformer; leaves the ema weights in the generator."""
    trainer = Trainer(recipe, generator, folder)
    corpus = LatentSet(iter(samples), generator.latents)
    with ProgressDisplay("transformer", recipe.transformer.steps, done=trainer.step) as display:

        def report(step: int, row: dict[str, float]) -> None:
            if step % 50 == 0:
                folder.log({"step": step, **row})
            display.update(step, f"loss {row['loss']:.4f}")

        trainer.train(corpus, report)
    loss = trainer.validation_loss(LatentSet(iter(held_out), generator.latents))
    trainer.swap_ema()
    return {
        "flow_loss": loss,
        "transformer_seconds": trainer.seconds,
        "parameters": sum(parameter.numel() for parameter in generator.transformer.parameters()),
    }


def _finish(recipe: PretrainRecipe, generator: LensGenerator, figures: dict[str, Any], path: Path) -> None:
    with whole_folder(path) as draft:
        generator.save(draft)
        (draft / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        (draft / FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        (draft / "README.md").write_text(model_card(recipe, figures) + "\n", encoding="utf-8")


def model_card(recipe: PretrainRecipe, figures: dict[str, Any]) -> str:
    """The card of a finished model, in Markdown."""
    by_steps = figures.get("samples")
    some = next(iter(by_steps.values())) if by_steps else {"prompts": 0, "by_kind": {}}
    card = CARD if by_steps else PACKED_CARD
    template = Template(card.read_text(encoding="utf-8"), where=card.name)
    return template.render(
        recipe=recipe.model_dump(),
        transformer=recipe.transformer.config,
        figures=figures,
        token=2 ** len(recipe.vae.widths),
        prompts=some["prompts"],
        kinds=list(some["by_kind"]),
    )


def _machine() -> str:
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}"
