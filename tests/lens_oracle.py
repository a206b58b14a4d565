"""A slow second reading of the Lens specification, for tests: plain functions over a state dict.

It shares no structure with `base_model.transformer`: rotations are 2 x 2 matrices, padded keys are left
out rather than masked, one sample at a time, and the softmax is written out. `wrong` names one deliberate mistake,
so that a test can show that it would be noticed.
"""

import math

import torch
from torch import Tensor

RECIPE = {
    "num_layers": 3,
    "num_attention_heads": 3,
    "attention_head_dim": 64,
    "enc_hidden_dim": 40,
    "axes_dims_rope": (8, 28, 28),
}
FEATURE_SCALES = (1, 30, 300, 3000)


def random_weights(model: torch.nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Fill a model with weights under which everything matters: open gates, uneven gains."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.3 * drawn + ("norm" in name and "linear" not in name))
            else:
                parameter.copy_(drawn / math.sqrt(parameter.shape[1]))
    return model.state_dict()


def random_inputs(grid: tuple[int, int], length: int, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """x [2, N, 128], features [2, L, 4, 40] of very different sizes, sigma [2]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, grid[0] * grid[1], 128, generator=generator)
    text = torch.randn(2, length, 4, 40, generator=generator) * torch.tensor(FEATURE_SCALES)[:, None]
    return x, text, torch.tensor([0.83, 0.21])


def lens_forward(w, x, text, t, grid, mask=None, *, heads=3, axes=(8, 28, 28), wrong="") -> Tensor:
    """Velocities, one sample at a time."""
    mask = torch.ones(text.shape[:2], dtype=torch.bool) if mask is None else mask
    rows = [_one(w, x[b], text[b][mask[b]], t[b], grid, heads=heads, axes=axes, wrong=wrong) for b in range(len(x))]
    return torch.stack(rows)


def _one(w, x, text, t, grid, *, heads, axes, wrong):
    dim, num_image = w["img_in.weight"].shape[0], len(x)

    def linear(name, y):
        out = y @ w[f"{name}.weight"].T
        return out + w[f"{name}.bias"] if f"{name}.bias" in w else out

    def rms(y, name, eps=1e-6):
        return y / (y.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]

    def silu(y):
        return y / (1 + torch.exp(-y))

    image = linear("img_in", x)
    words = linear("txt_in", torch.cat([rms(text[:, i], f"txt_norm.{i}", 1e-5) for i in range(text.shape[1])], -1))
    k = torch.arange(128)
    angle = 1000 * (t * torch.exp(-math.log(10000) * k / 128))
    wave = (angle.sin(), angle.cos()) if wrong == "sine first" else (angle.cos(), angle.sin())
    embedder = "time_text_embed.timestep_embedder"
    time = linear(f"{embedder}.linear_2", silu(linear(f"{embedder}.linear_1", torch.cat(wave))))
    turn = rotations(grid, len(text), axes, wrong)

    layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("transformer_blocks."))
    for layer in range(layers):
        p = f"transformer_blocks.{layer}"
        gates = {}
        queries, keys, values = [], [], []
        for side, stream, names in (
            ("img", image, ("norm_q", "norm_k")),
            ("txt", words, ("norm_added_q", "norm_added_k")),
        ):
            m = gates[side] = linear(f"{p}.{side}_mod.1", silu(time)).reshape(6, dim)
            shift, scale = (m[1], m[0]) if wrong == "scale first in the blocks" else (m[0], m[1])
            u = linear(f"{p}.attn.{side}_qkv", rms(stream, f"{p}.{side}_norm1") * (1 + scale) + shift)
            split = u.reshape(len(u), heads, 3, dim // heads).transpose(1, 2) if wrong == "qkv inner" else None
            q, key, v = (u.reshape(len(u), 3, heads, dim // heads) if split is None else split).unbind(1)
            queries.append(rms(q, f"{p}.attn.{names[0]}"))
            keys.append(rms(key, f"{p}.attn.{names[1]}"))
            values.append(v)
        if wrong == "text first":
            queries, keys, values = queries[::-1], keys[::-1], values[::-1]
        mixed = attend(torch.cat(queries), torch.cat(keys), torch.cat(values), turn)
        image = image + gates["img"][2] * linear(f"{p}.attn.to_out.0", mixed[:num_image])
        words = words + gates["txt"][2] * linear(f"{p}.attn.to_add_out", mixed[num_image:])
        image = image + feed_forward(p, "img", image, gates["img"], linear, rms, silu)
        words = words + feed_forward(p, "txt", words, gates["txt"], linear, rms, silu)

    scale, shift = linear("norm_out.linear", silu(time)).reshape(2, dim)
    if wrong == "shift first in the head":
        scale, shift = shift, scale
    centred = image - image.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    return linear("proj_out", normed * (1 + scale) + shift)


def feed_forward(p, side, stream, m, linear, rms, silu):
    z = rms(stream, f"{p}.{side}_norm2") * (1 + m[4]) + m[3]
    return m[5] * linear(f"{p}.{side}_mlp.w2", silu(linear(f"{p}.{side}_mlp.w1", z)) * linear(f"{p}.{side}_mlp.w3", z))


def attend(q, k, v, turn):
    """[T, heads, d] each; rotated by turn [T, d / 2, 2, 2]; softmax written out."""
    q, k = (torch.einsum("tpij,thpj->thpi", turn, y.reshape(*y.shape[:2], -1, 2)).reshape(y.shape) for y in (q, k))
    weight = torch.exp(torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1]))
    out = torch.einsum("hqk,khd->qhd", weight / weight.sum(-1, keepdim=True), v)
    return out.reshape(len(out), -1)


def rotations(grid, length, axes, wrong=""):
    """Rotation matrices [T, d / 2, 2, 2] of all tokens, position by position."""
    h, w = grid
    low_h, low_w = (-(h // 2), -(w // 2)) if wrong == "odd sides centred low" else (h // 2 - h, w // 2 - w)
    start = max(h // 2, w // 2) + (wrong == "text one later")
    places = [(0, low_h + r, low_w + c) for r in range(h) for c in range(w)]
    places += [(start + j,) * 3 for j in range(length)]
    frequencies = [[10000 ** (-2 * k / d) for k in range(d // 2)] for d in axes]
    angles = torch.tensor([[at * f for at, fs in zip(place, frequencies, strict=True) for f in fs] for place in places])
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
