"""LoRA on any model, through peft: attach, stack with weights, merge, take away."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from base_model.files import named_problems, raise_if
from base_model.lora_files import Lora, read_lora

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer


def load_loras(module: nn.Module, loras: Sequence[tuple[str | Path, float]]) -> None:
    """The module with exactly these LoRA files attached, each times its weight; none gives the bare module.

    All of them are read and compared with the module before anything changes. Raises ModelProblem with the names of
    layers that the module does not have, or has in another shape.
    """
    read = [(read_lora(path), weight) for path, weight in loras]
    for (lora, _), (path, _) in zip(read, loras, strict=True):
        raise_if(path, _misfits(module, lora, path), "a LoRA of this model")
    detach(module)
    for index, (lora, weight) in enumerate(read):
        attach(module, lora, f"lora{index}", weight)
    if read:
        activate(module, [f"lora{index}" for index in range(len(read))])


def attach(module: nn.Module, lora: Lora, name: str, weight: float = 1.0) -> None:
    """Add a LoRA that fits, under a name of its own, times `weight`."""
    from peft import LoraConfig, set_peft_model_state_dict

    inject(module, LoraConfig(**lora.settings()), name)
    set_peft_model_state_dict(module, lora.tensors, adapter_name=name)
    for layer in lora_layers(module):
        layer.set_scale(name, weight)


def inject(module: nn.Module, config: "LoraConfig", name: str) -> None:
    """Add new adapter layers to a module under a name, in fp32: bf16 would swallow most small changes."""
    from peft import inject_adapter_in_model

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with warnings.catch_warnings():
        # peft warns of several adapters on one model; several is the point here.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, module, adapter_name=name)
    for weight in adapter_weights(module, name).values():
        weight.data = weight.data.float()
    for parameter in trained:  # peft freezes them; whether the others train is for the caller to say
        parameter.requires_grad_(True)


def activate(module: nn.Module, names: Sequence[str]) -> None:
    """Exactly the adapters of these names take part, frozen; none gives what the module says without adapters."""
    for layer in lora_layers(module):
        layer.enable_adapters(bool(names))
        if names:
            layer.set_adapter(list(names), inference_mode=True)


def merge(module: nn.Module) -> None:
    """Fold the active adapters into the weights, and take all adapter layers away."""
    for layer in lora_layers(module):
        layer.merge()
    detach(module)


def detach(module: nn.Module) -> None:
    """Take all adapter layers away."""
    for name, layer in _named_lora_layers(module):
        module.set_submodule(name, layer.get_base_layer())
    if hasattr(module, "peft_config"):
        del module.peft_config


def adapter(module: nn.Module, name: str) -> Lora:
    """The LoRA that is attached under a name, sharing its tensors."""
    alphas = {path: layer.scaling[name] * layer.r[name] for path, layer in _named_lora_layers(module)}
    return Lora({key: weight.detach() for key, weight in adapter_weights(module, name).items()}, alphas)


def adapter_weights(module: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """The parameters of the adapter of a name, by key."""
    marked = f".{name}."
    return {
        key.replace(marked, "."): parameter
        for key, parameter in module.named_parameters()
        if marked in key and ".lora_" in key
    }


def lora_layers(module: nn.Module) -> list["LoraLayer"]:
    """The layers that adapters are attached to."""
    return [layer for _, layer in _named_lora_layers(module)]


def _misfits(module: nn.Module, lora: Lora, where: str | Path) -> list[str]:
    """One line for each way in which a LoRA is not one of this module."""
    linear = {name: part for name, part in _without_adapters(module) if isinstance(part, nn.Linear)}
    differing = []
    for layer, part in linear.items():
        if layer not in lora.alphas:
            continue
        a, b = (tuple(lora.tensors[f"{layer}.{half}.weight"].shape) for half in ("lora_A", "lora_B"))
        if a[0] != b[1] or (b[0], a[1]) != tuple(part.weight.shape):
            differing.append(f"{layer} is {list(b)} x {list(a)}, for a layer of {list(part.weight.shape)}")
    unknown = [layer for layer in lora.alphas if layer not in linear]
    return named_problems({"for layers that the model does not have": unknown, "of another shape": differing}, where)


def _without_adapters(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules as they are when no adapter is attached."""
    adapted = dict(_named_lora_layers(module))
    for name, part in module.named_modules():
        if name in adapted:
            yield name, adapted[name].get_base_layer()
        elif not any(name.startswith(f"{layer}.") for layer in adapted):
            yield name, part


def _named_lora_layers(module: nn.Module) -> list[tuple[str, "LoraLayer"]]:
    from peft.tuners.lora import LoraLayer

    return [(name, part) for name, part in module.named_modules() if isinstance(part, LoraLayer)]
