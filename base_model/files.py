"""Checkpoint folders: what must be in them, what is in them, and one clear error where the two differ."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SAMPLED = 65536


class ModelProblem(ValueError):
    """A checkpoint that cannot be loaded: the message names every file, key or field that is wrong."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelProblem(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelProblem(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelProblem(f"{path}: holds a {type(found).__name__}, not a JSON object")
    return found


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a component: `stem`.safetensors, or the shards that its index names."""
    whole, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if whole.exists():
        return [whole]
    if not index.exists():
        if pickles := sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES):
            raise ModelProblem(
                f"{folder}: {', '.join(pickles)} is a pickle, which may run code when opened; not read; "
                f"convert it to {whole.name}"
            )
        raise ModelProblem(f"{folder}: neither {whole.name} nor {index.name} is there")
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelProblem(f"{index}: {shard!r} is not the name of a safetensors file in the same folder")
    if missing := [shard for shard in shards if not (folder / shard).exists()]:
        raise ModelProblem(f"{folder}: {', '.join(missing)} named in {index.name} but not there")
    return [folder / shard for shard in shards]


def stored_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Shape by key over safetensors files; only their headers are read."""
    shapes = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as stored:
                shapes.update({key: tuple(stored.get_slice(key).get_shape()) for key in stored.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise ModelProblem(f"{path}: not a whole safetensors file: {error}") from error
    return shapes


def compare_shapes(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str | Path
) -> list[str]:
    """One line for each way in which the stored tensors are not the wanted ones."""
    differing = [
        f"{key} is {list(found[key])}, not {list(shape)}"
        for key, shape in wanted.items()
        if key in found and found[key] != shape
    ]
    kinds = {
        "missing": [key for key in wanted if key not in found],
        "unexpected": [key for key in found if key not in wanted],
        "of another shape": differing,
    }
    return [f"{where}: {len(keys)} {kind}: {', '.join(keys)}" for kind, keys in kinds.items() if keys]


def digest(*modules: nn.Module, salt: str = "") -> str:
    """A hash over `salt` and the names, types, shapes and values of all tensors of some modules.

    Of a large tensor it reads about 65,000 evenly spaced values: enough for a key, not a proof of equality.
    """
    total = hashlib.sha256(salt.encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            stride = max(1, tensor.numel() // SAMPLED)
            sampled = tensor.detach().flatten()[::stride].cpu().contiguous()
            total.update(sampled.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def raise_if(where: str | Path, problems: list[str]) -> None:
    """Raise one ModelProblem with all the lines, if there are any."""
    if problems:
        raise ModelProblem("\n  ".join([f"{where}: not a Lens checkpoint that can be used:", *problems]))
