"""Lens as a generator: sampling against a loop of diffusers' parts, checkpoints to the bit, errors by name."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from safetensors.torch import load_file, save_file

from base_model.files import ModelProblem
from base_model.generator import Generator
from base_model.latents import LatentCodec
from base_model.lens import LensGenerator
from base_model.sampling import sample
from base_model.text_features import tiny_text_encoder
from base_model.transformer import LensTransformer
from tests.lens_oracle import lens_forward, random_weights
from tests.test_latents import tiny_vae

WORDS = ["a", "red", "blue", "circle", "square"]
SIZE = (24, 32)
RELEASED_SCHEDULE = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "time_shift_type": "exponential",
    "shift_terminal": None,
    "invert_sigmas": False,
}
CONFIG = {
    "in_channels": 32,
    "out_channels": 8,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 3,
    "enc_hidden_dim": 32,
    "axes_dims_rope": (4, 6, 6),
    "selected_layer_index": (0, 1),
}


def build(schedule=RELEASED_SCHEDULE, **changes) -> LensGenerator:
    transformer = LensTransformer(**(CONFIG | changes))
    random_weights(transformer)
    codec = LatentCodec(tiny_vae((8, 8, 8), latent_channels=8))
    return LensGenerator(transformer, codec, tiny_text_encoder(WORDS, hidden=32, layers=2), schedule)


@pytest.fixture(scope="module")
def generator() -> LensGenerator:
    return build()


@pytest.fixture(scope="module")
def saved(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lens")
    generator.save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "lens")


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_sampling_is_the_loop_of_diffusers(generator, guidance):
    """Four steps in fp32; the reference has its own transformer, guidance and schedule, the unconditional masked."""
    features, grid = generator.encode(["a red circle", "blue square"]), (3, 4)
    out = sample(generator, features, SIZE, [3, 4], num_steps=4, guidance=guidance)

    weights, text, mask = generator.transformer.state_dict(), features.text_BLFD, features.mask_BL
    scheduler = FlowMatchEulerDiscreteScheduler(**{k: v for k, v in RELEASED_SCHEDULE.items() if k[0] != "_"})
    scheduler.set_timesteps(sigmas=np.linspace(1, 0.25, 4), mu=compute_empirical_mu(12, 4))
    x = generator.noise(SIZE, [3, 4])
    for t in scheduler.timesteps:
        sigma = (t / 1000).expand(2)
        options = {"heads": 3, "axes": (4, 6, 6)}
        v = lens_forward(weights, x, text, sigma, grid, mask, **options)
        if guidance != 1:
            u = lens_forward(weights, x, text, sigma, grid, torch.zeros_like(mask), **options)
            both = u + guidance * (v - u)
            v = both * (v.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True))
        x = scheduler.step(v, t, x, return_dict=False)[0]
    torch.testing.assert_close(out, x, atol=5e-5, rtol=5e-5)


def test_it_is_a_generator(generator):
    asked: Generator = generator
    assert asked.size_multiple == 8 and asked.trainable is generator.transformer
    assert asked.device.type == "cpu" and asked.dtype == torch.float32
    assert all(any(name.endswith(t) for name, _ in asked.trainable.named_modules()) for t in asked.lora_targets)


def test_an_image_depends_on_its_own_seed_only(generator):
    assert torch.equal(generator.noise(SIZE, [5, 9])[1], generator.noise(SIZE, [9])[0])
    assert generator.noise(SIZE, [2**62]).shape == (1, 12, 32)


def test_unconditional_features_have_no_text(generator):
    none = generator.unconditional(3)
    assert len(none) == 3 and none.text_BLFD.shape == (3, 0, 2, 32)
    both = generator.collate([generator.encode(["a red circle"]), none])
    x, sigma = torch.randn(4, 12, 32), torch.rand(4)
    with torch.no_grad():
        masked = generator.velocity(x, sigma, both, SIZE)[1:]
        torch.testing.assert_close(masked, generator.velocity(x[1:], sigma[1:], none, SIZE), atol=1e-5, rtol=1e-5)


def test_velocity_trains_and_sampling_does_not(generator):
    features = generator.select(generator.encode(["a red circle"]), [0, 0])
    x = sample(generator, features, SIZE, [1, 2], num_steps=2, sampler="multistep2")
    assert not x.requires_grad
    generator.velocity(x, torch.tensor([0.3, 0.6]), features, SIZE).sum().backward()
    assert generator.transformer.img_in.weight.grad is not None
    generator.transformer.zero_grad(set_to_none=True)


def test_latents_and_images_have_the_same_layout(generator):
    images = generator.images(torch.randn(2, 12, 32), SIZE)
    assert images.shape == (2, *SIZE, 3)
    assert generator.latents(images).shape == (2, 12, 32)


def test_the_schedule_decides_the_sigmas():
    assert build().sigmas(4, (128, 128)).tolist() == pytest.approx([1, 0.955391, 0.877134, 0.704112, 0], abs=1e-6)
    constant = build({"use_dynamic_shifting": False, "shift": 3.0}).sigmas(2, SIZE)
    assert constant.tolist() == [1, 0.75, 0]


def test_saved_and_loaded_to_the_bit(generator, saved, folder):
    loaded = LensGenerator.load(saved)
    assert loaded.identity() == generator.identity()
    for ours, theirs in (
        (generator.transformer, loaded.transformer),
        (generator.codec.vae, loaded.codec.vae),
        (generator.text_encoder.model, loaded.text_encoder.model),
    ):
        state = theirs.state_dict()
        assert state.keys() == ours.state_dict().keys()
        assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())

    texts = ["a red circle, blue"]
    run = {"num_steps": 2, "guidance": 3.0}
    ours, theirs = (g.images(sample(g, g.encode(texts), SIZE, [1], **run), SIZE) for g in (generator, loaded))
    assert np.array_equal(ours, theirs)
    assert loaded.scheduler_config == RELEASED_SCHEDULE
    assert not [path for path in saved.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]

    with torch.no_grad():
        loaded.transformer.proj_out.bias[0] += 1e-3
    assert loaded.identity() != generator.identity()


def test_bf16_loads_with_an_fp32_autoencoder(saved):
    loaded = LensGenerator.load(saved, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16 and loaded.codec.vae.dtype == torch.float32
    x = sample(loaded, loaded.encode(["a red circle"]), SIZE, [1], num_steps=2, guidance=2.0)
    assert x.dtype == torch.bfloat16 and loaded.images(x, SIZE).shape == (1, *SIZE, 3)


def test_every_wrong_tensor_is_named(folder):
    path = folder / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["img_in.bias"]
    tensors["stray.weight"] = torch.zeros(2)
    tensors["txt_in.bias"] = torch.zeros(5)
    save_file(tensors, path)
    vae = folder / "vae/diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(vae).items() if k != "bn.running_mean"}, vae)
    with pytest.raises(ModelProblem) as problem:
        LensGenerator.load(folder)
    text = str(problem.value)
    assert "transformer: 1 missing: img_in.bias" in text
    assert "1 unexpected: stray.weight" in text
    assert "1 of another shape: txt_in.bias is [5], not [48]" in text
    assert "vae: 1 missing: bn.running_mean" in text


def test_wrong_tensors_of_the_text_encoder_are_named(folder):
    path = folder / "text_encoder/model.safetensors"
    tensors = load_file(path)
    del tensors["layers.1.self_attn.sinks"]
    tensors["norm.weight"] = torch.zeros(3)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelProblem, match=r"layers\.1\.self_attn\.sinks[\s\S]*norm\.weight"):
        LensGenerator.load(folder)


def test_every_missing_file_is_named(folder):
    (folder / "scheduler/scheduler_config.json").unlink()
    (folder / "vae/diffusion_pytorch_model.safetensors").unlink()
    (folder / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(ModelProblem) as problem:
        LensGenerator.load(folder)
    for name in ("scheduler_config.json", "diffusion_pytorch_model.safetensors", "tokenizer.json"):
        assert name in str(problem.value)


def test_shards_are_read_and_a_missing_one_is_named(folder, generator):
    where = folder / "transformer"
    (where / "diffusion_pytorch_model.safetensors").unlink()
    generator.transformer.save_pretrained(where, max_shard_size="60KB")
    assert LensGenerator.load(folder).identity() == generator.identity()
    shard = sorted(where.glob("*-of-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelProblem, match=shard.name):
        LensGenerator.load(folder)


def test_pickles_are_refused(folder):
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    (folder / "transformer/diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelProblem, match=r"diffusion_pytorch_model\.bin is a pickle"):
        LensGenerator.load(folder)


def test_a_torn_file_is_named(folder):
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelProblem, match=r"vae/diffusion_pytorch_model\.safetensors: not a whole safetensors"):
        LensGenerator.load(folder)


@pytest.mark.parametrize(
    "file, values, said",
    [
        ("transformer/config.json", {"num_layer": 3}, "unknown field num_layer"),
        ("transformer/config.json", {"gate_mlp": False}, "gate_mlp"),
        ("transformer/config.json", {"_class_name": "FluxTransformer2DModel"}, "_class_name"),
        ("transformer/config.json", {"num_layers": 3}, "missing: transformer_blocks.2"),
        ("transformer/config.json", {"selected_layer_index": [0, 9]}, "selected_layer_index"),
        ("scheduler/scheduler_config.json", {"invert_sigmas": True}, "invert_sigmas"),
        ("scheduler/scheduler_config.json", {"time_shift_type": "linear"}, "time_shift_type"),
        ("scheduler/scheduler_config.json", {"shift": 0}, "shift: 0 must be a positive number"),
    ],
)
def test_a_wrong_field_is_named(folder, file, values, said):
    change_json(folder / file, **values)
    with pytest.raises(ValueError, match=said):
        LensGenerator.load(folder)


def test_parts_that_do_not_fit_are_named():
    with pytest.raises(ModelProblem, match=r"enc_hidden_dim 40: the text encoder's width is 32"):
        build(enc_hidden_dim=40)
    with pytest.raises(ModelProblem, match=r"patch_size\^2 \* out_channels 64"):
        build(out_channels=16)


def test_adapters_are_not_saved_unseen(tmp_path):
    from peft import LoraConfig

    adapted = build()
    adapted.transformer.add_adapter(LoraConfig(r=2, target_modules=adapted.lora_targets))
    with pytest.raises(ModelProblem, match="merge_loras"):
        adapted.save(tmp_path)


def test_importing_the_room_loads_no_torch():
    code = "import sys, base_model; assert 'torch' not in sys.modules; from base_model import LensPipeline"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError, match="LensTransformr"):
        from base_model import LensTransformr  # noqa: F401  # pyright: ignore
