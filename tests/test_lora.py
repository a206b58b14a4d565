"""LoRA: what is trained here says the same in diffusers, in peft, in ComfyUI's rule, merged, and read back."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from base_model import lora
from base_model.files import ModelProblem
from base_model.lora_files import (
    COMFYUI_FILE,
    DIFFUSERS_FILE,
    PEFT_FILE,
    Lora,
    read_lora,
    write_for_comfyui,
    write_for_diffusers,
    write_for_peft,
)
from lens_rl.policy import make_policy
from tests.tiny import tiny_generator

SIZE = (16, 8)
QKV, OUT = "transformer_blocks.0.attn.img_qkv", "transformer_blocks.1.attn.to_out.0"
SHAPES = {QKV: (96, 32), OUT: (32, 32)}


def predict(generator, module=None):
    features = generator.encode(["a red circle", "two squares"])
    with torch.no_grad():
        sigma_B = torch.tensor([0.9, 0.4], dtype=generator.dtype)
        call = (features.text_BLFD, sigma_B, (4, 2), features.mask_BL)
        return (module or generator.trainable)(generator.noise(SIZE, [1, 2]), *call)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def drawn(seed, ranks=(4, 4), alphas=(8.0, 8.0)) -> Lora:
    """A LoRA of two layers of the tiny model."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for (layer, (outputs, inputs)), rank in zip(SHAPES.items(), ranks, strict=True):
        tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) / 6
        tensors[f"{layer}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) / 6
    return Lora(tensors, dict(zip(SHAPES, alphas, strict=True)))


def added_by_hand(module, *loras):
    """The formula, on plain weights."""
    module = copy.deepcopy(module)
    for one, weight in loras:
        for layer, alpha in one.alphas.items():
            a, b = one.tensors[f"{layer}.lora_A.weight"], one.tensors[f"{layer}.lora_B.weight"]
            module.get_submodule(layer).weight.data += weight * alpha / len(a) * b @ a
    return module


@pytest.fixture(scope="module")
def trained():
    """A base, and the LoRA and the velocity after three steps of training on it."""
    generator = tiny_generator()
    base = copy.deepcopy(generator.transformer)
    policy = make_policy(generator.trainable, generator.lora_targets, kind="lora", rank=4, alpha=8, seed=0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    for _ in range(3):
        x_BNC = generator.noise(SIZE, [1, 2])
        features = generator.encode(["a red circle", "two squares"])
        generator.velocity(x_BNC, torch.tensor([0.9, 0.4]), features, SIZE).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = predict(generator)
    assert (expected - predict(generator, base)).abs().max() > 1e-2
    return generator, base, policy.adapter("current"), expected


def test_diffusers_loads_it(trained, tmp_path):
    generator, base, adapter, expected = trained
    write_for_diffusers(adapter, tmp_path)
    fresh = copy.deepcopy(base)
    fresh.load_lora_adapter(tmp_path, weight_name=DIFFUSERS_FILE)
    close(predict(generator, fresh), expected)


def test_peft_loads_it(trained, tmp_path):
    generator, base, adapter, expected = trained
    write_for_peft(adapter, tmp_path)
    close(predict(generator, PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)), expected)


def test_the_rule_of_comfyui_loads_it(trained, tmp_path):
    """ComfyUI goes through the model's own keys after `diffusion_model.`, and warns of what it has not used."""
    generator, base, adapter, expected = trained
    write_for_comfyui(adapter, tmp_path)
    stored, patched = load_file(tmp_path / COMFYUI_FILE), copy.deepcopy(base)
    for key, weight in patched.state_dict().items():
        name = f"diffusion_model.{key}".removesuffix(".weight")
        if (up := stored.pop(f"{name}.lora_B.weight", None)) is not None:
            down, alpha = stored.pop(f"{name}.lora_A.weight"), stored.pop(f"{name}.alpha").item()
            weight += alpha / down.shape[0] * (up @ down)
    assert not stored
    close(predict(generator, patched), expected)


@pytest.mark.parametrize("write", [write_for_diffusers, write_for_comfyui, write_for_peft])
@pytest.mark.parametrize("ranks, alphas", [((4, 4), (8.0, 8.0)), ((2, 3), (1.0, 6.0))])
def test_what_is_written_is_read_to_the_bit(tmp_path, write, ranks, alphas):
    one = drawn(0, ranks, alphas)
    back = read_lora(write(one, tmp_path))
    assert back.alphas == one.alphas
    assert back.tensors.keys() == one.tensors.keys()
    assert all(torch.equal(tensor, one.tensors[key]) for key, tensor in back.tensors.items())


def test_layers_of_different_rank_and_alpha_keep_their_own(tmp_path):
    generator, one = tiny_generator(), drawn(0, (2, 3), (1.0, 6.0))
    expected = predict(generator, added_by_hand(generator.transformer, (one, 1.0)))
    in_diffusers, in_peft = (copy.deepcopy(generator.transformer) for _ in range(2))
    in_diffusers.load_lora_adapter(write_for_diffusers(one, tmp_path).parent, weight_name=DIFFUSERS_FILE)
    close(predict(generator, in_diffusers), expected)
    write_for_peft(one, tmp_path)
    close(predict(generator, PeftModel.from_pretrained(in_peft, tmp_path)), expected)


def test_loras_stack_with_their_weights(tmp_path):
    generator, one, two = tiny_generator(), drawn(1), drawn(2, (2, 2), (4.0, 4.0))
    bare = predict(generator)
    files = [write(each, tmp_path) for each, write in ((one, write_for_diffusers), (two, write_for_comfyui))]
    expected = predict(generator, added_by_hand(generator.transformer, (one, 0.7), (two, -0.2)))

    generator.load_loras([(files[0], 0.7), (files[1], -0.2)])
    close(predict(generator), expected)
    generator.load_loras([(files[1], -0.2), (files[0], 0.7)])
    close(predict(generator), expected)
    assert not any(
        parameter.requires_grad for name, parameter in generator.trainable.named_parameters() if "lora_" in name
    )

    generator.merge_loras()
    close(predict(generator), expected)
    assert generator.transformer.state_dict().keys() == tiny_generator().transformer.state_dict().keys()
    assert (expected - bare).abs().max() > 1e-2


def test_taking_them_away_leaves_the_model_to_the_bit(tmp_path):
    generator = tiny_generator()
    bare = predict(generator)
    generator.load_loras([(write_for_diffusers(drawn(1), tmp_path), 1.0)])
    assert not torch.equal(predict(generator), bare)
    generator.load_loras([])
    assert torch.equal(predict(generator), bare)
    assert all(parameter.requires_grad for parameter in generator.transformer.parameters())
    generator.save(tmp_path / "model")


def test_adapters_of_a_bf16_model_stay_in_fp32(tmp_path):
    generator = tiny_generator()
    generator.transformer.to(torch.bfloat16)
    one = drawn(1)
    generator.load_loras([(write_for_diffusers(one, tmp_path), 1.0)])
    kept = lora.adapter(generator.transformer, "lora0")
    assert all(torch.equal(kept.tensors[key], tensor) for key, tensor in one.tensors.items())
    before = generator.transformer.get_submodule(QKV).get_base_layer().weight.float()
    generator.merge_loras()
    a, b = one.tensors[f"{QKV}.lora_A.weight"], one.tensors[f"{QKV}.lora_B.weight"]
    assert torch.equal(generator.transformer.get_submodule(QKV).weight, (before + 2 * b @ a).bfloat16())


def test_the_spelling_of_kohya_is_read(tmp_path):
    one = drawn(3, alphas=(2.0, 8.0))
    stored = {f"diffusion_model.{layer}.alpha": torch.tensor(alpha) for layer, alpha in one.alphas.items()}
    for key, tensor in one.tensors.items():
        stored["diffusion_model." + key.replace("lora_A", "lora_down").replace("lora_B", "lora_up")] = tensor
    save_file(stored, tmp_path / "kohya.safetensors")
    back = read_lora(tmp_path / "kohya.safetensors")
    assert back.alphas == one.alphas and back.tensors.keys() == one.tensors.keys()


def test_without_an_alpha_the_factor_is_one(tmp_path):
    one = drawn(3, ranks=(2, 3))
    save_file({f"transformer.{key}": tensor for key, tensor in one.tensors.items()}, tmp_path / "plain.safetensors")
    assert read_lora(tmp_path / "plain.safetensors").alphas == {QKV: 2, OUT: 3}


def test_the_root_rule_of_peft_is_understood(tmp_path):
    generator = tiny_generator()
    config = LoraConfig(r=4, lora_alpha=6, target_modules=[QKV, OUT], use_rslora=True, init_lora_weights=False)
    theirs = get_peft_model(copy.deepcopy(generator.transformer), config)
    theirs.save_pretrained(tmp_path)
    assert read_lora(tmp_path).alphas[QKV] == pytest.approx(6 * math.sqrt(4))
    generator.load_loras([(tmp_path, 1.0)])
    close(predict(generator), predict(generator, theirs.eval()))


def broken(name):
    """Files that are no LoRA of the tiny model, and what must be said of each."""
    tensors = {f"transformer.{key}": tensor for key, tensor in drawn(0).tensors.items()}
    half = f"transformer.{QKV}.lora_A.weight"
    if name == "another width":
        tensors[half] = torch.randn(4, 48)
    elif name == "another rank":
        tensors[half] = torch.randn(5, 32)
    elif name == "another model":
        tensors = {
            key.replace("transformer_blocks", "single_transformer_blocks"): value for key, value in tensors.items()
        }
    elif name == "one half":
        del tensors[half]
    elif name == "NaN":
        tensors[half][0, 0] = float("nan")
    elif name == "DoRA":
        tensors[f"transformer.{QKV}.lora_magnitude_vector"] = torch.ones(96)
    elif name == "no LoRA":
        tensors = dict(tiny_generator().transformer.state_dict())
    return tensors


@pytest.mark.parametrize(
    "name, said",
    [
        ("another width", r"1 of another shape: .*img_qkv is \[96, 4\] x \[4, 48\], for a layer of \[96, 32\]"),
        ("another rank", r"1 of another shape: .*img_qkv is \[96, 4\] x \[5, 32\]"),
        ("another model", r"2 for layers that the model does not have: single_transformer_blocks\.0\.attn\.img_qkv"),
        ("one half", r"1 without its other half: transformer_blocks\.0\.attn\.img_qkv"),
        ("NaN", r"1 with NaN or infinity: transformer_blocks\.0\.attn\.img_qkv\.lora_A\.weight"),
        ("DoRA", r"1 that belong to no LoRA: transformer\.transformer_blocks\.0\.attn\.img_qkv\.lora_magnitude_vector"),
        ("no LoRA", r"not a LoRA: this is a Lens transformer"),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_changes_nothing(tmp_path, name, said):
    generator = tiny_generator()
    bare = predict(generator)
    good = write_for_diffusers(drawn(0), tmp_path)
    save_file(broken(name), tmp_path / "wrong.safetensors")
    with pytest.raises(ModelProblem, match=said):
        generator.load_loras([(good, 1.0), (tmp_path / "wrong.safetensors", 1.0)])
    assert torch.equal(predict(generator), bare)


def test_other_files_are_named_with_the_fix(tmp_path):
    (tmp_path / "style.bin").write_bytes(b"\x80\x02}q")
    (tmp_path / "notes.safetensors").write_text("a style, trained on my own pictures")
    whole = write_for_diffusers(drawn(0), tmp_path)
    (tmp_path / "torn.safetensors").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    for name, said in {
        "style.bin": "is a pickle",
        "notes.safetensors": "it is a text file",
        "torn.safetensors": "not a whole safetensors file.*copy or download it again",
        "missing.safetensors": "no such file",
        "empty": f"neither {PEFT_FILE} nor {DIFFUSERS_FILE}",
    }.items():
        with pytest.raises(ModelProblem, match=said):
            read_lora(tmp_path / name)
