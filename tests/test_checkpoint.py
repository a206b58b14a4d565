"""Loading: exactly the released keys, every layout with equal outputs, no doubled memory, wrong files by name."""

import json
import shutil
import subprocess
import sys

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from base_model.checkpoint import check_tensors, stored_transformer
from base_model.files import ModelProblem
from base_model.lens import LensGenerator
from base_model.transformer import LensTransformer
from base_model.weights import SHARD_SIZE, on_meta, save_in_one_file
from tests.tiny import tiny_generator

RELEASED = {
    "img_in.weight": (1536, 128),
    "img_in.bias": (1536,),
    **{f"txt_norm.{layer}.weight": (2880,) for layer in range(4)},
    "txt_in.weight": (1536, 11520),
    "txt_in.bias": (1536,),
    "time_text_embed.timestep_embedder.linear_1.weight": (1536, 256),
    "time_text_embed.timestep_embedder.linear_1.bias": (1536,),
    "time_text_embed.timestep_embedder.linear_2.weight": (1536, 1536),
    "time_text_embed.timestep_embedder.linear_2.bias": (1536,),
    "norm_out.linear.weight": (3072, 1536),
    "norm_out.linear.bias": (3072,),
    "proj_out.weight": (128, 1536),
    "proj_out.bias": (128,),
}
RELEASED_BLOCK = {
    **{f"attn.{norm}.weight": (64,) for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")},
    **{f"{stream}_norm{n}.weight": (1536,) for stream in ("img", "txt") for n in (1, 2)},
    **{f"attn.{stream}_qkv.weight": (4608, 1536) for stream in ("img", "txt")},
    **{f"attn.{stream}_qkv.bias": (4608,) for stream in ("img", "txt")},
    **{f"attn.{out}.weight": (1536, 1536) for out in ("to_out.0", "to_add_out")},
    **{f"attn.{out}.bias": (1536,) for out in ("to_out.0", "to_add_out")},
    **{f"{stream}_mod.1.weight": (9216, 1536) for stream in ("img", "txt")},
    **{f"{stream}_mod.1.bias": (9216,) for stream in ("img", "txt")},
    **{f"{stream}_mlp.{w}.weight": (4096, 1536) for stream in ("img", "txt") for w in ("w1", "w3")},
    **{f"{stream}_mlp.w2.weight": (1536, 4096) for stream in ("img", "txt")},
}
NARROW = {
    "in_channels": 8,
    "out_channels": 2,
    "num_layers": 48,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "enc_hidden_dim": 24,
    "axes_dims_rope": (4, 6, 6),
    "selected_layer_index": (0, 1),
}
"""All 48 blocks, 32 wide."""
WIDE = NARROW | {"num_layers": 4, "num_attention_heads": 40}
"""59 million weights, 237 MB in fp32."""

LOADS = """
import os
import sys
from pathlib import Path
import torch
from base_model.checkpoint import stored_transformer

def kib(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field))

def peak(folder, dtype):
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = kib("VmRSS")
    model = stored_transformer(Path(folder)).load(dtype)
    return (kib("VmHWM") - before) * 1024 / sum(p.numel() * p.element_size() for p in model.parameters())

torch.set_num_threads(1)
warm, wide, low = sys.argv[1:]
peak(warm, None)  # whatever only the first load needs
for folder, dtype in ((wide, None), (wide, torch.bfloat16), (low, None)):
    if os.fork() == 0:  # none of them begins with the freed memory of another
        print(peak(folder, dtype), flush=True)
        os._exit(0)
    os.wait()
"""


def random_transformer(config) -> LensTransformer:
    torch.manual_seed(0)
    model = LensTransformer(**config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3))
    return model.eval()


def predict(model):
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(1, 12, 8, generator=generator), torch.randn(1, 5, 2, 24, generator=generator)
    dtype = model.img_in.weight.dtype
    with torch.no_grad():
        return model(x.to(dtype), text.to(dtype), torch.tensor([0.7]), (3, 4))


@pytest.fixture(scope="module")
def narrow():
    return random_transformer(NARROW)


@pytest.fixture(scope="module")
def layouts(narrow, tmp_path_factory):
    """The same weights as shards, as one file, and as bf16 shards, all of them without the rest of a checkpoint."""
    folder = tmp_path_factory.mktemp("narrow")
    narrow.save_pretrained(folder / "shards/transformer", max_shard_size="2MB")
    save_in_one_file(narrow, folder / "narrow.safetensors")
    low = random_transformer(NARROW).bfloat16()
    low.save_pretrained(folder / "bf16/transformer", max_shard_size="2MB")
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "lens"
    tiny_generator().save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "lens")


def test_a_model_of_the_released_size_wants_exactly_the_released_tensors():
    state = on_meta(LensTransformer, {}).state_dict()
    blocks = {f"transformer_blocks.{n}.{key}": shape for n in range(48) for key, shape in RELEASED_BLOCK.items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == RELEASED | blocks
    assert len(state) == 1264
    assert sum(value.numel() for value in state.values()) == 4_104_225_152
    assert all(value.is_meta for value in state.values())


def test_shards_one_file_and_bf16_say_the_same(narrow, layouts):
    expected = predict(narrow)
    assert len(list((layouts / "shards/transformer").glob("*.safetensors"))) > 3
    shards = stored_transformer(layouts / "shards")
    single = stored_transformer(layouts, layouts / "narrow.safetensors")
    check_tensors(layouts, [shards, single])
    for stored in (shards, single):
        assert torch.equal(predict(stored.load(torch.float32)), expected)

    low = stored_transformer(layouts / "bf16").load(None)
    rounded = shards.load(torch.bfloat16)
    assert low.dtype == torch.bfloat16
    assert torch.equal(predict(low), predict(rounded))
    assert torch.equal(predict(low), predict(random_transformer(NARROW).bfloat16()))
    assert not any(tensor.is_meta for tensor in [*low.parameters(), *low.buffers()])


def test_one_file_of_another_program_takes_the_folders_configuration(narrow, layouts, tmp_path):
    stored = load_file(layouts / "narrow.safetensors")
    save_file({f"model.diffusion_model.{key}": value for key, value in stored.items()}, tmp_path / "comfy.safetensors")
    found = stored_transformer(layouts / "shards", tmp_path / "comfy.safetensors")
    assert found.problems() == []
    assert torch.equal(predict(found.load(torch.float32)), predict(narrow))
    released = stored_transformer(tmp_path, tmp_path / "comfy.safetensors")
    assert released.config == {}
    assert any("img_in.weight is [32, 8], not [1536, 128]" in problem for problem in released.problems())


def test_loading_takes_the_memory_of_the_model_once(saved, tmp_path):
    """fp32 from one fp32 file, bf16 from the same, bf16 from bf16: the peak over the size of what comes out."""
    wide = on_meta(LensTransformer, WIDE).to_empty(device="cpu")
    for parameter in wide.parameters():
        parameter.data.fill_(0.1)
    wide.save_pretrained(tmp_path / "wide/transformer")
    torch.nn.Module.to(wide, torch.bfloat16).save_pretrained(tmp_path / "low/transformer")
    arguments = [sys.executable, "-c", LOADS, str(saved), str(tmp_path / "wide"), str(tmp_path / "low")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(0.9 < float(peak) < 1.5 for peak in done.stdout.split()), done.stdout


def test_a_model_of_the_released_size_is_saved_in_shards():
    """Read by diffusers' own splitter, without memory."""
    from huggingface_hub import split_torch_state_dict_into_shards

    for dtype, files in ((torch.float32, 5), (torch.bfloat16, 3)):
        state = on_meta(LensTransformer, {}).to_empty(device="meta").state_dict()
        state = {key: value.to(dtype) for key, value in state.items()}
        split = split_torch_state_dict_into_shards(state, max_shard_size=SHARD_SIZE)
        assert len(split.filename_to_tensors) == files and split.is_sharded


def test_a_generator_takes_another_transformer(saved, tmp_path):
    other = tiny_generator(seed=5)
    save_in_one_file(other.transformer, tmp_path / "other.safetensors")
    other.transformer.save_pretrained(tmp_path / "other")
    for place in (tmp_path / "other.safetensors", tmp_path / "other"):
        loaded = LensGenerator.load(saved, transformer=place)
        assert all(
            torch.equal(v, loaded.transformer.state_dict()[k]) for k, v in other.transformer.state_dict().items()
        )
    shutil.copytree(saved, tmp_path / "rest", ignore=shutil.ignore_patterns("transformer"))
    assert (
        LensGenerator.load(tmp_path / "rest", transformer=tmp_path / "other.safetensors").identity()
        == loaded.identity()
    )


def test_a_tensor_that_is_not_finite_is_named(folder):
    where = folder / "transformer/diffusion_pytorch_model.safetensors"
    tensors = load_file(where)
    tensors["img_in.bias"][3] = float("nan")
    tensors["txt_in.weight"][0, 0] = float("inf")
    save_file(tensors, where)
    with pytest.raises(ModelProblem, match=r"2 with NaN or infinity: img_in\.bias, txt_in\.weight"):
        LensGenerator.load(folder)
    vae = folder / "vae/diffusion_pytorch_model.safetensors"
    save_file(load_file(vae) | {"bn.running_mean": torch.full((8,), torch.nan)}, vae)
    tensors["img_in.bias"][3] = tensors["txt_in.weight"][0, 0] = 0.0
    save_file(tensors, where)
    with pytest.raises(ModelProblem, match=r"vae/.*1 with NaN or infinity: bn\.running_mean"):
        LensGenerator.load(folder)


STRANGERS = {
    "a FLUX.1 transformer": (diffusers.FluxTransformer2DModel, {"num_layers": 1, "num_single_layers": 1}),
    "a FLUX.2 transformer": (diffusers.Flux2Transformer2DModel, {"num_layers": 1, "num_single_layers": 1}),
    "a Stable Diffusion 3 transformer": (diffusers.SD3Transformer2DModel, {"num_layers": 1}),
    "a Qwen-Image transformer": (diffusers.QwenImageTransformer2DModel, {"num_layers": 1}),
    "a Stable Diffusion UNet": (diffusers.UNet2DConditionModel, {}),
    "an autoencoder": (diffusers.AutoencoderKL, {}),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_another_model_is_recognised(folder, tmp_path, name):
    """Keys are those of diffusers' own class; the shapes do not matter."""
    kind, config = STRANGERS[name]
    with torch.device("meta"):
        keys = kind(**config).state_dict()
    save_file({key: torch.zeros(1) for key in keys}, tmp_path / "stranger.safetensors")
    with pytest.raises(ModelProblem, match=f"stranger.safetensors: this is {name}, not a Lens transformer"):
        LensGenerator.load(folder, transformer=tmp_path / "stranger.safetensors")
    shutil.copy(tmp_path / "stranger.safetensors", folder / "transformer/diffusion_pytorch_model.safetensors")
    with pytest.raises(ModelProblem, match=f"transformer: this is {name}, not a Lens transformer"):
        LensGenerator.load(folder)


def test_the_folder_of_another_pipeline_is_recognised(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelProblem, match="this is the folder of a FluxPipeline, not of a LensPipeline"):
        LensGenerator.load(folder)


def test_what_is_no_checkpoint_folder_is_named_with_the_fix(folder, tmp_path):
    single = folder / "transformer/diffusion_pytorch_model.safetensors"
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02}q")
    for path, said in {
        single: "a file, not a folder; .* laid over such a folder",
        tmp_path / "old.ckpt": "is a pickle",
        tmp_path / "nowhere": "there is no such folder",
    }.items():
        with pytest.raises(ModelProblem, match=said):
            LensGenerator.load(path)


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "not a whole safetensors file: .*; copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "run `git lfs pull`"),
        (b"weights of the Lens transformer\n", "it is a text file"),
        (b"", "not a whole safetensors file"),
    ],
)
def test_a_shard_that_cannot_be_read_is_named_with_the_fix(folder, content, said):
    where = folder / "transformer"
    LensTransformer.from_pretrained(where).save_pretrained(where, max_shard_size="20KB")
    (where / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    shard = sorted(where.glob("*-of-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-50] if content is None else content)
    with pytest.raises(ModelProblem, match=f"{shard.name}: .*{said}"):
        LensGenerator.load(folder)


def test_a_single_file_that_is_a_pickle_is_not_opened(folder, tmp_path):
    (tmp_path / "lens.bin").write_bytes(b"\x80\x02}q")
    with pytest.raises(ModelProblem, match=r"lens\.bin is a pickle, which may run code when opened"):
        LensGenerator.load(folder, transformer=tmp_path / "lens.bin")
