"""Parity of the transformer with its three peers: an oracle, an assembly of diffusers' parts, and mflux.

The cases and tolerances are those of the model's specification, sections 15.2 and 15.3: three layers, three heads,
feature layers of very different sizes, gates open. A tolerance is in terms of the largest output, which is about 5:
products may be summed in another order, and then the last bits of the largest terms are all that one can ask for.
"""

import mlx.core as mx
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from mflux.models.lens.model.transformer.lens_transformer import LensTransformer as MfluxLens

from base_model.latents import LatentCodec
from base_model.lens import LensGenerator
from base_model.sampling import sample
from base_model.text_features import TextFeatures, tiny_text_encoder
from base_model.transformer import LensTransformer
from benchmarks.plain_lens import PlainLens
from tests.lens_oracle import RECIPE, lens_forward, random_inputs, random_weights
from tests.test_latents import tiny_vae

EVEN, ODD = (6, 8), (7, 5)
ORACLE, DIFFUSERS, MFLUX = 2e-6, 1e-6, 5e-5
SEES_QK_EPS = 3e-6
SCHEDULE = {"shift": 3.0, "use_dynamic_shifting": True, "time_shift_type": "exponential"}

MASKS = {
    "partial": torch.arange(9) < torch.tensor([[4], [9]]),
    "none left in one": torch.arange(9) < torch.tensor([[7], [0]]),
    "none left": torch.zeros(2, 9, dtype=torch.bool),
}


def lens(num_layers: int = 3, seed: int = 0) -> LensTransformer:
    built = LensTransformer(**(RECIPE | {"num_layers": num_layers, "selected_layer_index": range(4)}))
    random_weights(built, seed)
    return built.eval().requires_grad_(False)


def of_diffusers(model: LensTransformer, qk_eps: float = 1e-6):
    """The assembly that benchmarks compare with; a `qk_eps` of 1e-5 is the mistake of several ports."""
    peer = PlainLens(model)
    for block in peer.transformer_blocks:
        for norm in (block.attn.norm_q, block.attn.norm_k, block.attn.norm_added_q, block.attn.norm_added_k):
            norm.eps = qk_eps

    def velocity(x, text, sigma, grid, mask=None):
        return peer(x, text, sigma, grid, torch.ones(text.shape[:2], dtype=torch.bool) if mask is None else mask)

    return velocity


def of_mflux(model: LensTransformer) -> MfluxLens:
    """Strict: mflux takes exactly the checkpoint's keys."""
    peer = MfluxLens(num_layers=len(model.transformer_blocks), num_attention_heads=3, enc_hidden_dim=40)
    peer.load_weights([(name, mx.array(value.numpy())) for name, value in model.state_dict().items()])
    return peer


@pytest.fixture(scope="module")
def model() -> LensTransformer:
    return lens()


def furthest(ours, theirs):
    return (ours - theirs).abs().max().item()


def assert_close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape and furthest(ours, theirs) <= tolerance * theirs.abs().max()


@pytest.mark.parametrize(
    "num_layers, grid, length", [(1, EVEN, 7), (1, ODD, 12), (3, EVEN, 7), (3, ODD, 12), (3, (3, 9), 1), (3, ODD, 0)]
)
def test_every_peer_agrees(num_layers, grid, length):
    model = lens(num_layers, seed=num_layers)
    x, text, sigma = random_inputs(grid, length)
    ours = model(x, text, sigma, grid)
    assert_close(ours, lens_forward(model.state_dict(), x, text, sigma, grid), ORACLE)
    if length:
        assert_close(ours, of_diffusers(model)(x, text, sigma, grid), DIFFUSERS)
        theirs = of_mflux(model)(*(mx.array(value.numpy()) for value in (x, text, sigma)), *grid)
        assert_close(ours, torch.from_numpy(np.array(theirs)), MFLUX)


@pytest.mark.parametrize("grid", [EVEN, ODD])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_peers_agree_under_masks(model, grid, mask):
    x, text, sigma = random_inputs(grid, mask.shape[1])
    ours = model(x, text, sigma, grid, mask)
    assert_close(ours, lens_forward(model.state_dict(), x, text, sigma, grid, mask), ORACLE)
    assert_close(ours, of_diffusers(model)(x, text, sigma, grid, mask), DIFFUSERS)


@pytest.mark.parametrize("grid", [EVEN, ODD])
def test_all_masked_equals_no_text(model, grid):
    x, text, sigma = random_inputs(grid, 9)
    assert_close(model(x, text, sigma, grid, MASKS["none left"]), model(x, text[:, :0], sigma, grid), 2e-6)


def test_the_comparison_sees_an_epsilon(model):
    """1e-5 in the norms of queries and keys, as in several ports, is small but visible."""
    x, text, sigma = random_inputs(ODD, 6)
    ours = model(x, text, sigma, ODD)
    assert furthest(ours, of_diffusers(model)(x, text, sigma, ODD)) < SEES_QK_EPS
    assert furthest(ours, lens_forward(model.state_dict(), x, text, sigma, ODD)) < SEES_QK_EPS
    assert furthest(ours, of_diffusers(model, qk_eps=1e-5)(x, text, sigma, ODD)) > SEES_QK_EPS


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_four_steps_are_the_loop_of_diffusers(model, guidance):
    """fp32; the empty negative prompt is a mask without a true value there, and no text at all here."""
    encoder = tiny_text_encoder(["a"], hidden=40)
    generator = LensGenerator(model, LatentCodec(tiny_vae()), encoder, SCHEDULE)
    size = tuple(side * generator.size_multiple for side in ODD)
    _, text, _ = random_inputs(ODD, 9)
    features = TextFeatures(text, MASKS["partial"])
    ours = sample(generator, features, size, [3, 4], num_steps=4, guidance=guidance)

    peer, x = of_diffusers(model), generator.noise(size, [3, 4])
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULE)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0.25, 4), mu=compute_empirical_mu(x.shape[1], 4))
    for t in scheduler.timesteps:
        v = peer(x, text, (t / 1000).expand(2), ODD, MASKS["partial"])
        if guidance != 1:
            none = peer(x, text, (t / 1000).expand(2), ODD, MASKS["none left"])
            both = none + guidance * (v - none)
            v = both * v.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True)
        x = scheduler.step(v, t, x, return_dict=False)[0]
    # Rounding differs where one side masks what the other lacks, and guidance multiplies it.
    assert_close(ours, x, 1e-5 * guidance)
