"""Weights out of safetensors files into a model, one tensor at a time, and back into one file.

The model is built on the meta device, so that the peak of memory is the model and little more, whatever the dtype
in the files.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from base_model.families import without_prefix
from base_model.files import named_problems, raise_if, stored_metadata

SHARD_SIZE = "4GB"
"""Of saved transformers: the released size makes five files in fp32 and three in bf16."""

READ_AT_ONCE = 2**23
"""Numbers, give or take one tensor: 32 MB in fp32."""

CONFIG_KEY = "lens_config"
"""Where a transformer in one file keeps its configuration, as JSON, in the file's metadata."""

Model = TypeVar("Model", bound=nn.Module)


def on_meta(kind: type[Model], config: dict[str, Any]) -> Model:
    """A diffusers model without memory: shapes alone. Raises ValueError or TypeError for a bad configuration."""
    with torch.device("meta"):
        return cast(Any, kind).from_config(config)


def fill(
    model: Model, files: Sequence[Path], dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Model:
    """Give a model on the meta device the weights of `files`, in `dtype` (None: as stored), on `device`.

    Keys and shapes must be the model's own. Raises ModelProblem with the names of tensors that are not finite.
    """
    tensors, not_finite = {}, []
    for key, stored in _stream(files):
        if stored.is_floating_point() and not _is_finite(stored):
            not_finite.append(key)
        wanted = dtype if stored.is_floating_point() else None
        tensors[key] = torch.empty_like(stored, dtype=wanted, device=device).copy_(stored)
    where = ", ".join(str(path) for path in files)
    raise_if(where, named_problems({"with NaN or infinity": not_finite}, where))
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def save_in_one_file(model: nn.Module, path: Path) -> None:
    """A diffusers model as one .safetensors file: the same keys without a prefix, the configuration as metadata."""
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"format": "pt", CONFIG_KEY: cast(Any, model).to_json_string()})


def stored_config(path: Path) -> dict[str, Any] | None:
    """The configuration that `save_in_one_file` wrote, or None for a file of another program."""
    text = stored_metadata(path).get(CONFIG_KEY)
    return json.loads(text) if text else None


def _stream(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    for path in files:
        for portion in _portions(path):
            # Opened anew for each: what was read of an open file stays in memory until it is closed.
            with safe_open(path, framework="pt") as stored:
                for key in portion:
                    yield without_prefix(key), stored.get_tensor(key)


def _portions(path: Path) -> Iterator[list[str]]:
    """The keys of a file, so many at a time that their tensors have about READ_AT_ONCE numbers."""
    with safe_open(path, framework="pt") as stored:
        sizes = {key: math.prod(stored.get_slice(key).get_shape()) for key in stored.keys()}  # noqa: SIM118
    portion, total = [], 0
    for key, size in sizes.items():
        portion.append(key)
        total += size
        if total >= READ_AT_ONCE:
            yield portion
            portion, total = [], 0
    yield portion


def _is_finite(tensor: Tensor) -> bool:
    """One pass and no copy: the extremes of a tensor with a NaN are NaN."""
    return tensor.numel() == 0 or all(bool(extreme.isfinite()) for extreme in tensor.aminmax())
