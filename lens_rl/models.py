"""From what a user writes as `model` to a generator: the embedded one, a folder, a run, a class."""

from pathlib import Path

import torch
from safetensors.torch import load_file

import base_model
from base_model.generator import Generator
from base_model.lens import LensGenerator
from lens_core.doors import PREFIX, own_class
from lens_core.recipes import RecipeProblem, read_recipe
from lens_core.runs import RunFolder
from lens_rl.guards import best_step
from lens_rl.recipe import RlRecipe

EMBEDDED = {"shapes": Path(base_model.__file__).parent / "shapes"}


def open_generator(
    model: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    features: str | None = None,
) -> Generator:
    """`shapes`, a folder in the diffusers layout, a run folder, or `python: path/to/file.py:Class`.

    A run folder gives the run's start with the ema weights of its best checkpoint. `dtype` is that of the
    weights; a class of your own gets it as a keyword. `features` is the folder of a feature cache that takes the
    place of the text encoder.
    """
    if model.startswith(PREFIX):
        if features is not None:
            raise RecipeProblem(f"features: a feature cache holds features of Lens; {model} makes its own")
        return own_class(model, field="model")(device=device, dtype=dtype)
    folder = model_folder(model)
    if (folder / "checkpoints").is_dir():
        return _trained(folder, device, dtype, features)
    if not folder.is_dir():
        raise RecipeProblem(f"model: there is no folder {model}; `shapes` is the embedded checkpoint")
    return LensGenerator.load(folder, device=device, dtype=dtype, features=features)


def model_folder(model: str) -> Path:
    """The folder of an embedded checkpoint's name, or of a path."""
    return EMBEDDED.get(model, Path(model))


def _trained(path: Path, device: torch.device | str, dtype: torch.dtype, features: str | None) -> Generator:
    run = RunFolder(path)
    steps = run.checkpoints()
    if not steps:
        raise RecipeProblem(f"model: the run {path} has no checkpoint yet")
    recipe = read_recipe(RlRecipe, (path / "config.yaml").read_text(encoding="utf-8"), str(path / "config.yaml"))
    generator = open_generator(recipe.model, device, dtype, features=features)
    best = best_step([row for row in run.metrics() if row["step"] in steps])
    checkpoint = run.checkpoint(best)
    if (checkpoint / "lora").is_dir():
        _attach_lora(generator, checkpoint / "lora")
    else:
        weights = load_file(next((checkpoint / "transformer").glob("*.safetensors")))
        generator.trainable.load_state_dict(weights)
    return generator


def _attach_lora(generator: Generator, folder: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    config = LoraConfig.from_pretrained(str(folder))
    inject_adapter_in_model(config, generator.trainable, adapter_name="trained")
    set_peft_model_state_dict(
        generator.trainable, load_file(folder / "adapter_model.safetensors"), adapter_name="trained"
    )
