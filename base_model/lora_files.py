"""LoRA files: every usual spelling read into one, one written for each program.

A LoRA changes linear layers: weight + alpha / rank * B @ A, with A [rank, inputs] and B [outputs, rank]. Inside, its
keys are `LAYER.lora_A.weight` and `LAYER.lora_B.weight`, LAYER being the name of the layer in the model.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from base_model.families import family
from base_model.files import ModelProblem, named_problems, raise_if, read_json, stored_metadata, stored_shapes

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
COMFYUI_FILE = "comfyui_lora.safetensors"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"

SETTINGS_KEY = "lora_adapter_metadata"
"""Where diffusers keeps a LoRA's alpha and ranks, as JSON, in the metadata of its file."""

_KEY = re.compile(
    r"(?:transformer\.|(?:model\.)?diffusion_model\.|base_model\.model\.)?"
    r"(?P<layer>.+?)\.(?:lora[_.](?P<half>A|B|down|up)(?:\.default)?\.weight|alpha)"
)
"""The spellings of diffusers, ComfyUI, peft and kohya: what comes before a layer's name, and what after it."""

_HALVES = {"A": "lora_A", "down": "lora_A", "B": "lora_B", "up": "lora_B"}


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """Both halves of each layer by key, and each layer's alpha."""

    tensors: dict[str, Tensor]
    alphas: dict[str, float]

    @property
    def ranks(self) -> dict[str, int]:
        return {layer: self.tensors[f"{layer}.lora_A.weight"].shape[0] for layer in self.alphas}

    def scaled(self, weight: float) -> "Lora":
        """The same change times `weight`."""
        return replace(self, alphas={layer: alpha * weight for layer, alpha in self.alphas.items()})

    def to(self, dtype: torch.dtype) -> "Lora":
        return replace(self, tensors={key: tensor.to(dtype) for key, tensor in self.tensors.items()})

    def settings(self) -> dict[str, Any]:
        """The fields of peft's LoraConfig that say all of it; layers that differ from most stand in the patterns."""
        rank, rank_pattern = _most_and_others(self.ranks)
        alpha, alpha_pattern = _most_and_others(self.alphas)
        return {
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": rank_pattern,
            "alpha_pattern": alpha_pattern,
            "target_modules": sorted(self.alphas),
        }


def read_lora(path: str | Path) -> Lora:
    """A LoRA file, or a folder that diffusers or peft has written.

    Raises ModelProblem for what is no LoRA, for halves without the other, for other kinds of adapter, and for NaN.
    """
    file, settings = _find(Path(path))
    keys = stored_shapes([file])
    if (kind := family(keys)) != "a LoRA":
        raise ModelProblem(f"{file}: not a LoRA{f': this is {kind}' if kind else ''}")
    tensors, alphas, strange = {}, {}, []
    for key, tensor in load_file(file).items():
        match = _KEY.fullmatch(key)
        if match is None:
            strange.append(key)
        elif match["half"] is None:
            alphas[match["layer"]] = float(tensor)
        else:
            tensors[f"{match['layer']}.{_HALVES[match['half']]}.weight"] = tensor
    raise_if(file, named_problems({"that belong to no LoRA": strange, **_broken(tensors)}, file), "a LoRA")
    layers = sorted({key.partition(".lora_")[0] for key in tensors})
    settings = settings or _settings_in(file)
    ranks = {layer: tensors[f"{layer}.lora_A.weight"].shape[0] for layer in layers}
    return Lora(tensors, {layer: alphas.get(layer, _alpha(layer, ranks[layer], settings)) for layer in layers})


def write_for_diffusers(lora: Lora, folder: Path) -> Path:
    """`pytorch_lora_weights.safetensors`, as a diffusers pipeline's `load_lora_weights` wants it."""
    settings = {f"transformer.{field}": value for field, value in lora.settings().items()}
    return _write(
        {f"transformer.{key}": tensor for key, tensor in lora.tensors.items()},
        folder / DIFFUSERS_FILE,
        {SETTINGS_KEY: json.dumps(settings, sort_keys=True)},
    )


def write_for_comfyui(lora: Lora, folder: Path) -> Path:
    """`comfyui_lora.safetensors`: the model's own names after `diffusion_model.`, and an alpha for each layer."""
    tensors = {f"diffusion_model.{key}": tensor for key, tensor in lora.tensors.items()}
    alphas = {f"diffusion_model.{layer}.alpha": torch.tensor(alpha) for layer, alpha in lora.alphas.items()}
    return _write(tensors | alphas, folder / COMFYUI_FILE, {})


def write_for_peft(lora: Lora, folder: Path) -> Path:
    """`adapter_model.safetensors` and `adapter_config.json`, as `PeftModel.from_pretrained` wants them."""
    from peft import LoraConfig

    folder.mkdir(parents=True, exist_ok=True)
    LoraConfig(**lora.settings()).save_pretrained(str(folder))
    return _write({f"base_model.model.{key}": tensor for key, tensor in lora.tensors.items()}, folder / PEFT_FILE, {})


def _write(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    save_file(plain, file, {"format": "pt", **metadata})
    return file


def _find(path: Path) -> tuple[Path, dict[str, Any]]:
    """The file with the tensors, and peft's settings where they lie beside it."""
    if path.is_dir():
        names = [name for name in (PEFT_FILE, DIFFUSERS_FILE) if (path / name).exists()]
        if not names:
            raise ModelProblem(f"{path}: neither {PEFT_FILE} nor {DIFFUSERS_FILE} is there")
        path = path / names[0]
    return path, read_json(path.with_name(PEFT_CONFIG)) if path.name == PEFT_FILE else {}


def _settings_in(file: Path) -> dict[str, Any]:
    found = json.loads(stored_metadata(file).get(SETTINGS_KEY, "{}"))
    return {field.removeprefix("transformer."): value for field, value in found.items()}


def _alpha(layer: str, rank: int, settings: Mapping[str, Any]) -> float:
    """What peft's settings say, made to be divided by the rank; the rank itself, a factor of 1, where nobody says."""
    from peft.utils.other import get_pattern_key

    pattern = settings.get("alpha_pattern") or {}
    alpha = pattern.get(get_pattern_key(list(pattern), layer), settings.get("lora_alpha", rank))
    return alpha * math.sqrt(rank) if settings.get("use_rslora") else alpha


def _broken(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Keys by what is wrong with them, whatever the model."""
    halves = {key: key.replace(".lora_A.", ".lora_B.") for key in tensors if ".lora_A." in key}
    alone = {key for key in tensors if key not in halves} ^ set(halves.values())
    return {
        "without its other half": sorted(alone),
        "not a matrix": [key for key, tensor in tensors.items() if tensor.ndim != 2],
        "with NaN or infinity": [key for key, tensor in tensors.items() if not tensor.isfinite().all()],
    }


def _most_and_others(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The commonest value, and the entries that are not it."""
    ((most, _),) = Counter(values.values()).most_common(1)
    return most, {name: value for name, value in values.items() if value != most}
