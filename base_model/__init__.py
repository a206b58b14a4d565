"""What is trained: generators (Lens first), their transformer, text features, latents, flow maths, samplers.

`from base_model import LensTransformer, LensPipeline, LensGenerator` works; the names are looked up when they
are asked for, so that importing this package loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from base_model.lens import LensGenerator
    from base_model.pipeline import LensPipeline
    from base_model.transformer import LensTransformer

__all__ = ["LensGenerator", "LensPipeline", "LensTransformer"]

_HOMES = {"LensGenerator": "lens", "LensPipeline": "pipeline", "LensTransformer": "transformer"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'base_model' has no attribute {name!r}")
    return getattr(import_module(f"base_model.{_HOMES[name]}"), name)
