"""The Lens transformer against a slow oracle, diffusers' parts, mflux, and its own laws."""

import json

import pytest
import torch
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch._dynamo.utils import counters

from base_model.block import RMSNorm
from base_model.transformer import LensTransformer, time_wave
from tests.lens_oracle import RECIPE, lens_forward, random_inputs, random_weights

WRONG = (
    "text first",
    "scale first in the blocks",
    "shift first in the head",
    "qkv inner",
    "sine first",
    "text one later",
    "odd sides centred low",
)


@pytest.fixture(scope="module")
def model():
    built = LensTransformer(**RECIPE)
    random_weights(built)
    return built.eval()


def close(a, b, tolerance=5e-6):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("grid, length", [((6, 8), 7), ((7, 5), 12), ((3, 9), 1), ((6, 8), 0)])
def test_agrees_with_the_oracle(model, grid, length):
    x, text, sigma = random_inputs(grid, length)
    with torch.no_grad():
        close(model(x, text, sigma, grid), lens_forward(model.state_dict(), x, text, sigma, grid))


def test_agrees_with_the_oracle_under_masks(model):
    grid, length = (5, 6), 9
    x, text, sigma = random_inputs(grid, length)
    mask = torch.arange(length) < torch.tensor([[4], [0]])
    with torch.no_grad():
        close(model(x, text, sigma, grid, mask), lens_forward(model.state_dict(), x, text, sigma, grid, mask))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_mistake_would_be_noticed(model, wrong):
    grid = (7, 5)
    x, text, sigma = random_inputs(grid, 6)
    with torch.no_grad():
        right = model(x, text, sigma, grid)
        other = lens_forward(model.state_dict(), x, text, sigma, grid, wrong=wrong)
    assert (right - other).abs().max() > 0.02


def test_layers_are_normed_one_by_one(model):
    grid = (4, 4)
    x, text, sigma = random_inputs(grid, 5)
    scaled = text * torch.tensor([7.0, 0.5, 3.0, 20.0])[:, None]
    with torch.no_grad():
        close(model(x, scaled, sigma, grid), model(x, text, sigma, grid), 2e-5)


def test_padding_changes_nothing(model):
    grid = (6, 5)
    x, text, sigma = random_inputs(grid, 6)
    padded = torch.cat([text, torch.randn(2, 5, 4, 40)], dim=1)
    mask = torch.arange(11)[None].expand(2, -1) < 6
    with torch.no_grad():
        close(model(x, padded, sigma, grid, mask), model(x, text, sigma, grid))
        none = model(x, text[:, :0], sigma, grid)
        close(model(x, text, sigma, grid, torch.zeros(2, 6, dtype=torch.bool)), none)
        assert torch.equal(model(x, text, sigma, grid, torch.ones(2, 6, dtype=torch.bool)), model(x, text, sigma, grid))


def test_a_ragged_batch_is_its_samples_one_by_one(model):
    grid, lengths = (5, 6), (4, 9, 0, 4)
    x, text = (torch.cat([part, part.flip(1)]) for part in random_inputs(grid, 9)[:2])
    sigma = torch.tensor([0.9, 0.1, 0.5, 0.7])
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = model(x, text, sigma, grid, mask)
        alone = [model(x[b, None], text[b, None, :length], sigma[b, None], grid)[0] for b, length in enumerate(lengths)]
    close(together, torch.stack(alone))


def test_without_text_the_weights_of_the_text_get_zeros_not_nothing(model):
    x, text, sigma = random_inputs((4, 4), 0)
    model.zero_grad()
    out = model(x, text, sigma, (4, 4))
    out.sum().backward()
    block = model.transformer_blocks[0]
    assert all(block.get_submodule(name).weight.grad.abs().max() == 0 for name in ("attn.txt_qkv", "txt_mlp.w1"))
    assert model.txt_in.weight.grad.abs().max() == 0
    model.zero_grad()
    with torch.no_grad():
        close(model(x, text, sigma, (4, 4)), out)


def test_norms_round_before_the_gain():
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(48, 1e-6).to(torch.bfloat16)
    norm.weight.data = torch.randn(48, generator=generator).bfloat16()
    x = 7 * torch.randn(100, 48, generator=generator).bfloat16()
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    rounded = exact.to(torch.bfloat16)
    assert torch.equal(norm(x), rounded * norm.weight)
    assert not torch.equal(norm(x), (exact * norm.weight).to(torch.bfloat16))


def test_text_may_come_as_a_list_and_the_grid_with_its_frame(model):
    x, text, sigma = random_inputs((4, 6), 3)
    with torch.no_grad():
        expected = model(x, text, sigma, (4, 6))
        assert torch.equal(model(x, list(text.unbind(2)), sigma, (1, 4, 6)), expected)


def test_time_embedding_is_that_of_diffusers(model):
    sigma = torch.tensor([1, 0.967384, 0.5, 1e-3])
    wave = Timesteps(256, True, 0, scale=1000)(sigma)
    close(time_wave(sigma), wave, 1e-6)
    embedding = TimestepEmbedding(256, 192)
    embedding.load_state_dict(model.time_text_embed.timestep_embedder.state_dict())
    with torch.no_grad():
        close(model.time_text_embed(sigma), embedding(wave))


def test_low_precision_stays_near(model):
    grid = (6, 6)
    x, text, sigma = random_inputs(grid, 5)
    sigma = sigma.bfloat16()
    low = LensTransformer(**RECIPE)
    low.load_state_dict(model.state_dict())
    low = low.to(torch.bfloat16)
    with torch.no_grad():
        out = low(x.bfloat16(), text.bfloat16(), sigma, grid)
        expected = model(x.bfloat16().float(), text.bfloat16().float(), sigma.float(), grid)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().mean() < 0.05


def test_initialisation_is_seeded_predicts_zero_and_learns():
    models = [LensTransformer(**RECIPE).init_weights(torch.Generator().manual_seed(3)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    x, text, sigma = random_inputs((4, 4), 5)
    assert models[0](x, text, sigma, (4, 4)).abs().max() == 0

    target, losses = torch.randn_like(x), []
    optimiser = torch.optim.AdamW(models[0].parameters(), lr=1e-3)
    for _ in range(12):
        loss = (models[0](x, text, sigma, (4, 4)) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_checkpointing_gives_the_same_gradients(model):
    x, text, sigma = random_inputs((4, 5), 3)

    def gradients():
        model.zero_grad()
        model(x, text, sigma, (4, 5)).square().mean().backward()
        return [None if p.grad is None else p.grad.clone() for p in model.parameters()]

    plain = gradients()
    model.enable_gradient_checkpointing()
    again = gradients()
    model.disable_gradient_checkpointing()
    model.zero_grad()
    for a, b in zip(plain, again, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            close(a, b)


def saved_bytes(run):
    """Bytes that autograd keeps for the backward of what `run` returns, each storage once."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.setdefault(tensor.untyped_storage().data_ptr(), tensor), lambda tensor: tensor
    ):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_checkpointing_keeps_the_two_streams_of_each_block_and_little_more(model):
    x, text, sigma = random_inputs((16, 16), 20)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    model.enable_gradient_checkpointing()
    checkpointed = saved_bytes(lambda: model(x, text, sigma, (16, 16)))
    model.disable_gradient_checkpointing()
    plain = saved_bytes(lambda: model(x, text, sigma, (16, 16))) - weights
    streams = 3 * 2 * (256 + 20) * 192 * 4
    assert streams <= checkpointed < 4 * streams < plain / 4


def test_what_cannot_reach_the_output_gets_no_gradient(model):
    x, text, sigma = random_inputs((4, 5), 3)
    model.zero_grad()
    model(x, text, sigma, (4, 5)).sum().backward()
    last = model.transformer_blocks[-1]
    q_rows = last.attn.txt_qkv.weight.grad[:192]
    assert last.attn.to_add_out.weight.grad is None and last.txt_mlp.w1.weight.grad is None
    assert q_rows.abs().max() == 0
    model.zero_grad()


def test_tables_made_while_sampling_serve_training(model):
    x, text, sigma = random_inputs((3, 11), 4)
    with torch.inference_mode():
        model(x, text, sigma, (3, 11))
    model(x, text, sigma, (3, 11)).sum().backward()
    model.zero_grad()


def test_saves_under_the_released_class_name_and_loads_to_the_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "LensTransformer2DModel"

    (tmp_path / "config.json").write_text(json.dumps(config | {"_class_name": "LensTransformer"}))
    loaded = LensTransformer.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_lora_adapters_attach(model):
    from peft import LoraConfig

    from base_model.lens import LORA_TARGETS

    adapted = LensTransformer(**RECIPE)
    adapted.add_adapter(LoraConfig(r=2, target_modules=LORA_TARGETS))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 3 * 4 * 2
    x, text, sigma = random_inputs((2, 2), 2)
    assert adapted(x, text, sigma, (2, 2)).shape == x.shape


def graphs_of(run):
    """What `run` returns, and how many graphs the compiler made for it."""
    before = counters["stats"]["unique_graphs"]
    return run(), counters["stats"]["unique_graphs"] - before


def test_compiled_graphs_serve_every_bucket_and_are_bounded(model):
    compiled = LensTransformer(**RECIPE)
    compiled.load_state_dict(model.state_dict())
    compiled.compile_blocks(backend="eager")

    def graphs(grid, length, samples, lengths=None, trains=False):
        inputs = [part[:samples] for part in random_inputs(grid, length)]
        mask = None if lengths is None else torch.arange(length) < torch.tensor(lengths)[:, None]
        with torch.set_grad_enabled(trains):
            out, made = graphs_of(lambda: compiled(*inputs, grid, mask))
            close(out, model(*inputs, grid, mask))
            if trains:
                out.square().mean().backward()
        return made

    several = graphs((6, 8), 7, samples=2)
    assert graphs((7, 5), 9, samples=2) == graphs((4, 4), 0, samples=2) == 0
    assert graphs((3, 5), 9, samples=2, lengths=(9, 4)) == graphs((3, 6), 6, samples=2, lengths=(0, 6)) == 0
    single = graphs((6, 8), 7, samples=1)
    assert graphs((5, 5), 3, samples=1) == 0
    trained = graphs((6, 8), 7, samples=2, trains=True)
    assert graphs((4, 5), 9, samples=2, lengths=(2, 9), trains=True) == 0
    textless = graphs((4, 5), 0, samples=2, trains=True)
    assert graphs((4, 6), 0, samples=2, trains=True) == 0
    assert several > 0 and several + single + 2 * (trained + textless) <= 32
    model.zero_grad()


def test_compiled_checkpointed_adapters_train_as_eager_ones_do(model):
    from peft import LoraConfig

    from base_model.lens import LORA_TARGETS

    x, text, sigma = random_inputs((4, 5), 3)

    def gradients(change):
        adapted = LensTransformer(**RECIPE)
        adapted.load_state_dict(model.state_dict())
        adapted.requires_grad_(False)
        torch.manual_seed(0)
        adapted.add_adapter(LoraConfig(r=2, target_modules=LORA_TARGETS, init_lora_weights=False))
        change(adapted)
        adapted(x, text, sigma, (4, 5)).square().mean().backward()
        return {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}

    def compiled_and_checkpointed(adapted):
        adapted.compile_blocks(backend="aot_eager")
        adapted.enable_gradient_checkpointing()

    expected, found = gradients(lambda adapted: None), gradients(compiled_and_checkpointed)
    assert found.keys() == expected.keys() and len(found) == 3 * 4 * 2 - 2  # the last to_add_out never runs
    for name, gradient in expected.items():
        close(found[name], gradient, 2e-5)


@pytest.mark.parametrize(
    "change, field",
    [
        ({"gate_mlp": False}, "gate_mlp"),
        ({"rms_norm": False}, "rms_norm"),
        ({"axes_dims_rope": (8, 8, 8)}, "axes_dims_rope"),
    ],
)
def test_a_configuration_that_cannot_be_names_its_field(change, field):
    with pytest.raises(ValueError, match=field):
        LensTransformer(**(RECIPE | change))


def test_wrong_inputs_are_named(model):
    x, text, sigma = random_inputs((2, 3), 2)
    with pytest.raises(ValueError, match="grid"):
        model(x, text, sigma, (3, 3))
    with pytest.raises(ValueError, match="3 feature layers given, the transformer takes 4"):
        model(x, text[:, :, :3], sigma, (2, 3))
