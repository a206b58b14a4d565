"""The linear layer over oneDNN is `nn.Linear`, forwards and backwards."""

import pytest
import torch
from torch import nn

from base_model import linear
from base_model.linear import Linear


@pytest.mark.parametrize("shape, bias", [((300, 96), True), ((2, 40, 96), True), ((4, 3, 50, 96), False)])
def test_equal_to_torch_with_its_gradients(monkeypatch, shape, bias):
    monkeypatch.setattr(linear, "WORTH_IT", 0)
    generator = torch.Generator().manual_seed(0)
    theirs, ours = nn.Linear(96, 160, bias=bias), Linear(96, 160, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    x, weight = torch.randn(shape, generator=generator), torch.randn(*shape[:-1], 160, generator=generator)
    results = []
    for layer in (theirs, ours):
        given = x.clone().requires_grad_()
        out = layer(given)
        (out * weight).sum().backward()
        results.append([out, given.grad, *(parameter.grad for parameter in layer.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)


def test_no_rows_give_no_rows_and_gradients_of_zeros(monkeypatch):
    monkeypatch.setattr(linear, "WORTH_IT", 0)
    layer, x = Linear(8, 4), torch.randn(0, 8, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert out.shape == (0, 4) and x.grad.shape == (0, 8)
    assert layer.weight.grad.abs().max() == 0 and layer.bias.grad.abs().max() == 0


def test_what_is_frozen_gets_no_gradient(monkeypatch):
    monkeypatch.setattr(linear, "WORTH_IT", 0)
    layer = Linear(8, 4).requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 8))


def test_large_products_go_to_onednn_and_only_fp32_ones(monkeypatch):
    seen = []
    monkeypatch.setattr(linear.Product, "apply", lambda *args: seen.append(args) or torch.nn.functional.linear(*args))
    layer = Linear(512, 512)
    layer(torch.randn(64, 512))
    assert len(seen) == 1
    layer(torch.randn(1, 512))
    layer.double()(torch.randn(64, 512, dtype=torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(torch.randn(64, 512)).dtype == torch.bfloat16
    assert len(seen) == 1
