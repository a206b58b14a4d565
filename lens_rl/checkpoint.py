"""All that a run needs to go on, in one folder that is whole or absent. No pickle.

    step-000120/
      transformer/          the ema weights in diffusers layout (full fine-tuning), or
      lora/                 the ema adapter as peft loads it
      training/             roles.safetensors, optimizer.safetensors, state.json

Random streams need no saving: each is a function of the run's seed, its name and the step.
"""

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from base_model.generator import Generator
from base_model.lora_files import write_for_peft
from base_model.weights import SHARD_SIZE
from lens_core.runs import RunFolder, RunProblem, whole_folder
from lens_rl.policy import LoraPolicy, Policy


def save(folder: RunFolder, step: int, policy: Policy, optimizer: torch.optim.Optimizer, generator: Generator) -> None:
    """Write the checkpoint of `step`. Raises RunProblem, and leaves the older ones, where the disk says no."""
    with whole_folder(folder.checkpoint(step)) as draft:
        training = draft / "training"
        training.mkdir()
        save_file(_plain(policy.tensors()), training / "roles.safetensors")
        save_file(_plain(_optimizer_tensors(optimizer)), training / "optimizer.safetensors")
        (training / "state.json").write_text(json.dumps({"step": step}))
        with policy.role("ema"):
            if isinstance(policy, LoraPolicy):
                write_for_peft(policy.adapter("ema"), draft / "lora")
            else:
                cast(Any, generator.trainable).save_pretrained(draft / "transformer", max_shard_size=SHARD_SIZE)


def load(folder: RunFolder, step: int, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """Put the checkpoint of `step` back into the policy's roles and the optimiser."""
    load_roles(folder, step, policy)
    tensors = _read(folder.checkpoint(step) / "training" / "optimizer.safetensors")
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        index, field = name.split("/")
        state.setdefault(int(index), {})[field] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def load_roles(folder: RunFolder, step: int, policy: Policy) -> None:
    """The policy's roles alone, for what follows training."""
    policy.load_tensors(_read(folder.checkpoint(step) / "training" / "roles.safetensors"))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}/{field}": value
        for index, fields in optimizer.state_dict()["state"].items()
        for field, value in fields.items()
    }


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise RunProblem(
            f"checkpoint file {path} cannot be read ({error}); delete its step folder to go on from the one before"
        ) from error
