"""Several sets of weights for one module: averaged towards each other, or put in its place."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def blend(values: Sequence[Tensor], towards: Sequence[Tensor], decay: float) -> None:
    """values <- decay * values + (1 - decay) * towards, in place; a decay of 0 copies to the bit."""
    for value, other in zip(values, towards, strict=True):
        if decay == 0.0:
            value.copy_(other)
        else:
            value.lerp_(other, 1.0 - decay)


def exchange(parameters: Sequence[nn.Parameter], values: list[Tensor]) -> None:
    """Parameters and values change places; twice is nothing. No copy is made.

    Not between a forward and its backward: the graph looks at the parameters.
    """
    for index, parameter in enumerate(parameters):
        parameter.data, values[index] = values[index], parameter.data
