"""`lens-rl export`: what a run has learned, as the files that other programs load."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base_model import lora
from base_model.checkpoint import check_files, quiet, stored_transformer
from base_model.files import raise_if
from base_model.lora_files import read_lora, write_for_comfyui, write_for_diffusers
from base_model.transformer import LensTransformer
from base_model.weights import SHARD_SIZE, save_in_one_file
from lens_core.doors import PREFIX
from lens_core.recipes import RecipeProblem, nearest
from lens_core.runs import whole_file, whole_folder
from lens_rl.models import Source, resolve

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NOT_COPIED = ("transformer", "README.md", ".*")
"""Of the base folder: its own transformer, and what was said of it."""


def export(model: str, format: str, out: Path, *, step: int | None = None, dtype: str | None = None) -> list[Path]:
    """Write a run, or any model, to `out`, which must not be there yet; returns the files.

    `dtype` is `fp32` or `bf16`; weights keep the one they are stored in if it is not given. Raises RecipeProblem or
    ModelProblem with what to change; nothing is at `out` then.
    """
    if format not in FORMATS:
        raise RecipeProblem(f"--format {format}: unknown{nearest(format, FORMATS)}; there are {', '.join(FORMATS)}")
    if dtype is not None and dtype not in DTYPES:
        raise RecipeProblem(f"--dtype {dtype}: unknown; there are {', '.join(DTYPES)}")
    if out.exists():
        raise RecipeProblem(f"--out {out}: is there already; name a new one")
    if format == "single-file" and out.suffix != ".safetensors":
        raise RecipeProblem(f"--out {out}: one file has the ending .safetensors")
    source = resolve(model, step)
    if format != "lora" and source.base.startswith(PREFIX):
        raise RecipeProblem(f"--format {format}: {source.base} is a class of your own; only its LoRA can be exported")
    quiet()
    whole = whole_file if format == "single-file" else whole_folder
    with whole(out) as draft:
        FORMATS[format](source, DTYPES[dtype] if dtype else None, draft)
    return [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())


def _diffusers(source: Source, dtype: torch.dtype | None, out: Path) -> None:
    """A whole pipeline's folder: the base with the trained transformer in place of its own."""
    check_files(Path(source.base), without=["transformer"] * (source.transformer is not None))
    _transformer(source, dtype).save_pretrained(out / "transformer", max_shard_size=SHARD_SIZE)
    shutil.copytree(source.base, out, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)


def _merged(source: Source, dtype: torch.dtype | None, out: Path) -> None:
    """The transformer alone, in the diffusers layout, LoRAs folded in."""
    _transformer(source, dtype).save_pretrained(out, max_shard_size=SHARD_SIZE)


def _single_file(source: Source, dtype: torch.dtype | None, out: Path) -> None:
    """The transformer alone, in one file without prefixes, LoRAs folded in."""
    save_in_one_file(_transformer(source, dtype), out)


def _lora(source: Source, dtype: torch.dtype | None, out: Path) -> None:
    """The last LoRA, as diffusers and as ComfyUI reads it: two files of one small thing."""
    if not source.loras:
        raise RecipeProblem("--format lora: this model has no LoRA, all of its weights are its own; take merged")
    path, weight = source.loras[-1]
    found = read_lora(path).scaled(weight)
    if dtype is not None:
        found = found.to(dtype)
    write_for_diffusers(found, out)
    write_for_comfyui(found, out)


FORMATS: dict[str, Callable[[Source, torch.dtype | None, Path], None]] = {
    "diffusers": _diffusers,
    "lora": _lora,
    "merged": _merged,
    "single-file": _single_file,
}


def _transformer(source: Source, dtype: torch.dtype | None) -> Any:
    """The transformer alone: the text encoder, five times as large, is never opened.

    LoRAs are folded in before anything is rounded to a shorter dtype.
    """
    stored = stored_transformer(Path(source.base), source.transformer)
    raise_if(stored.where, stored.problems())
    transformer: LensTransformer = stored.load(torch.float32 if dtype is torch.float32 else None)
    if source.loras:
        lora.load_loras(transformer, source.loras)
        lora.merge(transformer)
    return nn.Module.to(transformer, dtype) if dtype else transformer
