"""The roles of one model: current (in training), old (generates), reference (the frozen start), ema.

Every role is the same module with other weights, so training and rollout cannot disagree about
anything else. `with policy.role("old"): ...` puts a role's weights in place; outside any `with`
the current ones are.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from base_model import lora
from base_model.lora_files import Lora
from base_model.parameter_sets import blend, exchange
from lens_core.seeds import seed_of

Role = Literal["current", "old", "reference", "ema"]


class Policy(Protocol):
    """What the loop needs of a policy."""

    def parameters(self) -> list[nn.Parameter]:
        """The current role's trainable parameters, in a fixed order."""
        ...

    def role(self, role: Role) -> contextlib.AbstractContextManager[None]:
        """That role's weights are in place inside the block."""
        ...

    def blend(self, role: Literal["old", "ema"], decay: float) -> None:
        """role <- decay * role + (1 - decay) * current."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Every weight of every role that training can move, for a checkpoint."""
        ...

    def load_tensors(self, tensors: dict[str, Tensor]) -> None: ...


class FullPolicy:
    """All weights train; roles are parameter sets that change places with the module's own."""

    def __init__(self, module: nn.Module):
        module.requires_grad_(True)
        self._names = [name for name, _ in module.named_parameters()]
        self._parameters = list(module.parameters())
        self._sets = {role: self._snapshot() for role in ("old", "reference", "ema")}

    def parameters(self) -> list[nn.Parameter]:
        return self._parameters

    @contextlib.contextmanager
    def role(self, role: Role) -> Iterator[None]:
        if role == "current":
            yield
            return
        exchange(self._parameters, self._sets[role])
        try:
            yield
        finally:
            exchange(self._parameters, self._sets[role])

    def blend(self, role: Literal["old", "ema"], decay: float) -> None:
        blend(self._sets[role], self._parameters, decay)

    def tensors(self) -> dict[str, Tensor]:
        sets: dict[str, Sequence[Tensor]] = {"current": self._parameters, **self._sets}
        return {
            f"{role}/{name}": tensor.detach()
            for role, values in sets.items()
            if role != "reference"
            for name, tensor in zip(self._names, values, strict=True)
        }

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for role, values in {"current": self._parameters, **self._sets}.items():
            if role != "reference":
                for name, tensor in zip(self._names, values, strict=True):
                    tensor.copy_(tensors[f"{role}/{name}"])

    def _snapshot(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self._parameters]


class LoraPolicy:
    """Low-rank adapters train; roles are peft adapters on one backbone, the reference is none."""

    def __init__(self, module: nn.Module, targets: list[str], *, rank: int, alpha: int):
        from peft import LoraConfig

        module.requires_grad_(False)
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights="gaussian", lora_dropout=0.0
        )
        for role in ("current", "old", "ema"):
            lora.inject(module, config, role)
        self._module = module
        self._layers = lora.lora_layers(module)
        self._weights = {role: lora.adapter_weights(module, role) for role in ("current", "old", "ema")}
        for role in ("old", "ema"):
            blend(list(self._weights[role].values()), self.parameters(), 0.0)
        self._activate("current")

    def parameters(self) -> list[nn.Parameter]:
        return list(self._weights["current"].values())

    @contextlib.contextmanager
    def role(self, role: Role) -> Iterator[None]:
        self._activate(role)
        try:
            yield
        finally:
            self._activate("current")

    def blend(self, role: Literal["old", "ema"], decay: float) -> None:
        blend(list(self._weights[role].values()), self.parameters(), decay)

    def tensors(self) -> dict[str, Tensor]:
        return {
            f"{role}/{name}": weight.detach()
            for role, weights in self._weights.items()
            for name, weight in weights.items()
        }

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for role, weights in self._weights.items():
            for name, weight in weights.items():
                weight.copy_(tensors[f"{role}/{name}"])

    def adapter(self, role: Role) -> Lora:
        """One role's LoRA."""
        return lora.adapter(self._module, role)

    def _activate(self, role: Role) -> None:
        for layer in self._layers:
            layer.enable_adapters(role != "reference")
            if role != "reference":
                layer.set_adapter(role)
        # peft lets the active adapter train; here only the current role ever does.
        for name, weights in self._weights.items():
            for weight in weights.values():
                weight.requires_grad_(name == "current")


def make_policy(module: nn.Module, targets: list[str], *, kind: str, rank: int, alpha: int, seed: int) -> Policy:
    """`full` or `lora`. The module is put in evaluation mode: a policy has no dropout."""
    module.eval()
    if kind == "full":
        return FullPolicy(module)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "lora"))
        return LoraPolicy(module, targets, rank=rank, alpha=alpha)
