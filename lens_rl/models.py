"""From what a user writes as `model` to a generator: the embedded one, a folder, a run, a class, and files over it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

import base_model
from base_model import lora
from base_model.families import family
from base_model.files import ModelProblem, compare_shapes, raise_if, stored_shapes, weight_files
from base_model.generator import Generator
from base_model.lens import LensGenerator
from base_model.weights import fill
from lens_core.doors import PREFIX, own_class
from lens_core.recipes import RecipeProblem, read_recipe
from lens_core.runs import RunFolder
from lens_rl.guards import best_step
from lens_rl.recipe import RlRecipe

EMBEDDED = {"shapes": Path(base_model.__file__).parent / "shapes"}


@dataclass(frozen=True, slots=True)
class Source:
    """What a model is made of: a base, perhaps another transformer for it, and LoRAs with their weights."""

    base: str
    """A folder in the diffusers layout, or `python: path/to/file.py:Class`."""
    transformer: Path | None = None
    """A .safetensors file, or a folder in the diffusers layout, in place of the base's own."""
    loras: tuple[tuple[Path, float], ...] = ()


def open_generator(
    model: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    features: str | None = None,
) -> Generator:
    """The generator of a model as users write it; see `resolve`. LoRAs are merged into the weights.

    `dtype` is that of the weights; a class of your own gets it as a keyword. `features` is the folder of a feature
    cache that takes the place of the text encoder.
    """
    source = resolve(model)
    if source.base.startswith(PREFIX):
        if features is not None:
            raise RecipeProblem(f"features: a feature cache holds features of Lens; {source.base} makes its own")
        generator = own_class(source.base, field="model")(device=device, dtype=dtype)
        if source.transformer is not None:
            _refill(generator, source.transformer)
    else:
        generator = LensGenerator.load(source.base, device, dtype, transformer=source.transformer, features=features)
    if source.loras:
        lora.load_loras(generator.trainable, source.loras)
        lora.merge(generator.trainable)
    return generator


def resolve(model: str, step: int | None = None) -> Source:
    """What `model` stands for; only names and headers are read.

    `shapes`, a folder in the diffusers layout, a run folder, or `python: path/to/file.py:Class`; then any number of
    ` + FILE`, each laid over what stands before it: a LoRA, as ` + FILE * WEIGHT` if its weight is not 1, or a
    transformer, which takes the place of the one before. A run folder is the run's own `model` with the ema weights
    of its best checkpoint over it, or of the checkpoint of `step`.
    """
    base, *overlays = (part.strip() for part in model.split(" + "))
    folder = model_folder(base)
    if base.startswith(PREFIX):
        source = Source(base)
    elif (folder / "checkpoints").is_dir():
        source = _trained(folder, step)
    else:
        if not folder.exists():
            raise RecipeProblem(f"model: there is no folder {base}; `shapes` is the embedded checkpoint")
        source = Source(str(folder))
    for overlay in overlays:
        source = _laid_over(source, overlay)
    return source


def model_folder(model: str) -> Path:
    """The folder of an embedded checkpoint's name, or of a path."""
    return EMBEDDED.get(model, Path(model))


def _trained(path: Path, step: int | None) -> Source:
    run = RunFolder(path)
    steps = run.checkpoints()
    if not steps:
        raise RecipeProblem(f"model: the run {path} has no checkpoint yet")
    if step is not None and step not in steps:
        raise RecipeProblem(
            f"model: the run {path} has no checkpoint of step {step}; it has {', '.join(map(str, steps))}"
        )
    recipe = read_recipe(RlRecipe, (path / "config.yaml").read_text(encoding="utf-8"), str(path / "config.yaml"))
    chosen = run.checkpoint(best_step([row for row in run.metrics() if row["step"] in steps]) if step is None else step)
    start = resolve(recipe.model)
    if (chosen / "lora").is_dir():
        return replace(start, loras=(*start.loras, (chosen / "lora", 1.0)))
    return Source(start.base, chosen / "transformer")


def _laid_over(source: Source, overlay: str) -> Source:
    """The source with one ` + FILE` or ` + FILE * WEIGHT` more."""
    name, star, factor = overlay.rpartition(" * ")
    path = Path(name.strip() if star else overlay)
    try:
        weight = float(factor) if star else 1.0
    except ValueError as error:
        raise RecipeProblem(f"model: {overlay!r}: write a LoRA and its weight as FILE * 0.8") from error
    if not path.exists():
        raise RecipeProblem(f"model: there is no file {path}")
    kind = "a LoRA" if path.is_dir() and not (path / "config.json").exists() else family(_shapes(path))
    if kind == "a LoRA":
        return replace(source, loras=(*source.loras, (path, weight)))
    if kind != "a Lens transformer":
        raise RecipeProblem(
            f"model: {path} is {kind or 'of an unknown kind'}; a Lens transformer or a LoRA can be added"
        )
    if star:
        raise RecipeProblem(f"model: {path} is a whole transformer; only a LoRA has a weight")
    return Source(source.base, path)


def _refill(generator: Generator, transformer: Path) -> None:
    """Other weights for a generator that is there already."""
    files = _files(transformer)
    wanted = {key: tuple(value.shape) for key, value in generator.trainable.state_dict().items()}
    raise_if(transformer, compare_shapes(wanted, stored_shapes(files), transformer), "a transformer of this model")
    fill(generator.trainable, files, generator.dtype, generator.device)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        return stored_shapes(_files(path))
    except ModelProblem as problem:
        raise RecipeProblem(f"model: {problem}") from problem


def _files(path: Path) -> list[Path]:
    return weight_files(path, "diffusion_pytorch_model") if path.is_dir() else [path]
