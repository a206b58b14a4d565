"""A linear layer that takes the faster matrix product on the CPU: oneDNN's instead of MKL's.

PyTorch sends fp32 products to MKL, which leaves AVX-512 unused on processors that are not Intel's; oneDNN, which
PyTorch carries as well, does not. `docs/speed.md` has the numbers. Everywhere else, and after
`torch.backends.mkldnn.flags(enabled=False)`, this is `nn.Linear`, whose parameters and keys it has.

Shapes: any leading dimensions, I inputs, O outputs; weight [O, I], bias [O].
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTH_IT = 2**21
"""Multiplications from which oneDNN makes up for its longer way there: some 20 microseconds."""


class Linear(nn.Linear):
    """`nn.Linear`; fp32 on the CPU through oneDNN, outside autocast."""

    def forward(self, input: Tensor) -> Tensor:
        if not _is_for_onednn(input, self.weight):
            return F.linear(input, self.weight, self.bias)
        if torch.is_grad_enabled():
            return cast(Tensor, Product.apply(input, self.weight, self.bias))
        return torch.ops.lens_rl.product(input, self.weight, self.bias)


class Product(torch.autograd.Function):
    """x @ weight.T + bias, and its gradients, each one oneDNN product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.lens_rl.product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = torch.ops.lens_rl.product(grad, weight.t(), None)
        if ctx.needs_input_grad[1]:
            of_weight = torch.ops.lens_rl.product(grad.flatten(0, -2).t(), x.flatten(0, -2).t(), None)
        if ctx.needs_input_grad[2]:
            of_bias = grad.flatten(0, -2).sum(0)
        return of_x, of_weight, of_bias


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.ndim > 1
        and HAS_ONEDNN
        and (torch.compiler.is_compiling() or x.numel() * weight.shape[0] >= WORTH_IT)
        and not torch.is_autocast_enabled("cpu")
    )


def _onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.numel() == 0:  # a batch without text, which oneDNN refuses
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _product_of_shape(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

# An operator of our own, since the compiler takes oneDNN's only with weights that never change.
_library = torch.library.Library("lens_rl", "DEF")
_library.define("product(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_library.impl("product", _onednn_product, "CPU")
torch.library.register_fake("lens_rl::product", _product_of_shape)
