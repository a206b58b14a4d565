"""Checkpoint folders: what must be in them, what is in them, and one clear error where the two differ."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from base_model.families import without_prefix

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
        for path in sorted(folder.glob("*")):
            refuse_pickle(path)
        raise ModelProblem(f"{folder}: neither {whole.name} nor {index.name} is there")
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelProblem(f"{index}: {shard!r} is not the name of a safetensors file in the same folder")
    if missing := [shard for shard in shards if not (folder / shard).exists()]:
        raise ModelProblem(f"{folder}: {', '.join(missing)} named in {index.name} but not there")
    return [folder / shard for shard in shards]


def refuse_pickle(path: Path) -> None:
    """Raise where a file's name says that it is a pickle."""
    if path.suffix in PICKLES:
        raise ModelProblem(
            f"{path}: {path.name} is a pickle, which may run code when opened; not read; convert it to safetensors"
        )


def stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Shape by key over safetensors files, keys without the prefixes of other programs; only headers are read."""
    shapes = {}
    for path in files:
        refuse_pickle(path)
        try:
            with safe_open(path, framework="pt") as stored:
                shapes |= {without_prefix(key): tuple(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118
        except FileNotFoundError as error:
            raise ModelProblem(f"{path}: no such file") from error
        except (SafetensorError, OSError) as error:
            raise ModelProblem(f"{path}: not a whole safetensors file: {error}; {_fix(path)}") from error
    return shapes


def stored_metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file carries beside its tensors."""
    with safe_open(path, framework="pt") as stored:
        return stored.metadata() or {}


def named_problems(kinds: Mapping[str, Sequence[str]], where: str | Path) -> list[str]:
    """One line for each kind of problem that has names, with their number."""
    return [f"{where}: {len(names)} {kind}: {', '.join(names)}" for kind, names in kinds.items() if names]


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
    return named_problems(kinds, where)


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


def raise_if(where: str | Path, problems: Sequence[str], what: str = "a Lens checkpoint") -> None:
    """Raise one ModelProblem with all the lines, if there are any."""
    if problems:
        raise ModelProblem("\n  ".join([f"{where}: not {what} that can be used:", *problems]))


def _fix(path: Path) -> str:
    """What to do about a file that is no safetensors file, told from its first bytes."""
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer: run `git lfs pull` in its folder"
    if head and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "it is a text file: hand in the weights themselves"
    return "copy or download it again"
