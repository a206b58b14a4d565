"""How much memory a transformer takes, found by running it without any: on the meta device, watching what is alive.

Counts are of tensors alone. A CUDA context, the kernels' own workspace and the allocator's gaps come on top: one to
two GB.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from base_model import lora
from base_model.transformer import LensTransformer
from base_model.weights import on_meta
from lens_core.records import Size

ROLES_THAT_TRAIN = 3
"""current, old and ema; the reference is kept beside them only where all weights train."""
ADAM_MOMENTS = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `weights` do not train; `trained` is all that does, with its roles, gradients and moments."""

    weights: int
    trained: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.trained + self.activations


@dataclass(frozen=True, slots=True)
class Batch:
    """The shape of what goes through the transformer at once."""

    images: int
    grid: tuple[int, int]
    text_tokens: int


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes of tensors made by `work` that are alive at once. What was there before is not counted."""
    watch = _Watch()
    with watch:
        work()
    return watch.peak


def generation_memory(config: dict[str, Any], dtype: torch.dtype, batch: Batch) -> Memory:
    """Of one velocity without gradients; guidance makes its two one after the other."""
    model = _model(config, dtype)
    inputs = _inputs(model, dtype, batch)

    def work() -> Tensor:
        with torch.no_grad(), _FusedAttention():
            return model(*inputs)

    return Memory(weights=_size(model.parameters()), trained=0, activations=peak_bytes(work))


def training_memory(
    config: dict[str, Any],
    dtype: torch.dtype,
    batch: Batch,
    *,
    lora_rank: int | None,
    targets: Sequence[str],
    checkpointing: bool,
) -> Memory:
    """Of RL on one batch, forward and backward in `dtype`; what trains is kept in fp32.

    A rank of None trains all weights. Gradients are there from the first batch on.
    """
    model = _model(config, dtype)
    if lora_rank is not None:
        from peft import LoraConfig

        model.requires_grad_(False)
        lora.inject(model, LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=list(targets)), "current")
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trains:
        parameter.grad = torch.empty_like(parameter)
    if checkpointing:
        model.enable_gradient_checkpointing(_checkpoint)
    inputs = _inputs(model, dtype, batch)

    def work() -> None:
        with _FusedAttention():
            loss = model(*inputs).sum()
        loss.backward()

    copies = ROLES_THAT_TRAIN + (lora_rank is None) + 1 + ADAM_MOMENTS
    return Memory(
        weights=_size(parameter for parameter in model.parameters() if not parameter.requires_grad),
        trained=copies * 4 * sum(parameter.numel() for parameter in trains),
        activations=peak_bytes(work),
    )


def decoding_bytes(vae: Any, size: Size, *, tiled: bool) -> int:
    """Of one picture out of an autoencoder on the meta device, its weights not counted."""
    config = vae.config
    side = 2 ** (len(config.block_out_channels) - 1)
    z = torch.empty(1, config.latent_channels, size[0] // side, size[1] // side, dtype=vae.dtype, device="meta")
    vae.use_tiling = tiled

    def work() -> Tensor:
        with torch.no_grad(), _FusedAttention():
            return vae.decode(z, return_dict=False)[0]

    return peak_bytes(work)


def _model(config: dict[str, Any], dtype: torch.dtype) -> LensTransformer:
    model = on_meta(LensTransformer, config)
    nn.Module.to(model, dtype)
    return model


def _inputs(model: LensTransformer, dtype: torch.dtype, batch: Batch) -> tuple[Any, ...]:
    config: Any = model.config
    rows, columns = batch.grid
    text = (batch.images, batch.text_tokens, len(config.selected_layer_index), config.enc_hidden_dim)
    return (
        torch.empty(batch.images, rows * columns, config.in_channels, dtype=dtype, device="meta"),
        torch.empty(text, dtype=dtype, device="meta"),
        torch.empty(batch.images, device="meta"),
        batch.grid,
    )


def _checkpoint(block: nn.Module, *inputs: Any) -> Any:
    """Diffusers' own, with the attention of a GPU in the second forward too."""
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _FusedAttention()))


def _size(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Watch(TorchDispatchMode):
    """Counts the storages that operations make, until they are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_storage(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and _storage(value) not in known | self._alive:
                self._count(value.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


class _FusedAttention(TorchFunctionMode):
    """Attention as a GPU does it: the table of all pairs, which the meta device would make, is never there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*args[:3])
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """Shapes alone: keeps queries, keys, values, the output and one number a row."""

    @staticmethod
    def forward(ctx: Any, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor) -> Tensor:
        out = torch.empty_like(q_BHTD)
        row = torch.empty(q_BHTD.shape[:-1], dtype=torch.float32, device=q_BHTD.device)
        ctx.save_for_backward(q_BHTD, k_BHTD, v_BHTD, out, row)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
