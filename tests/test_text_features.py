"""Text features: what is captured of GPT-OSS, from any text, in any form that it is stored in."""

import copy
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GptOssConfig, GptOssForCausalLM, GptOssModel

from base_model.checkpoint import load_text_encoder
from base_model.text_features import PromptCut, TextEncoder, TextFeatures, tiny_text_encoder, word_tokenizer
from base_model.text_template import TextTemplate
from tests.harmony import harmony_tokenizer

WORDS = ["a", "red", "blue", "green", "circle", "square", "above", "below", "two"]
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
"""The magnitudes of a 4-bit float; the fourth bit is the sign."""


@pytest.fixture(scope="module")
def deep():
    """24 blocks as in the release, with a window that 40 tokens outgrow."""
    tokenizer = word_tokenizer([*WORDS, *(f"w{i}" for i in range(40))])
    config = GptOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
        pad_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = GptOssForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return TextEncoder(model, tokenizer, template=TextTemplate(prefix="two two a", suffix="<end>"))


def off(ours, theirs):
    """The largest difference in terms of the largest value: features are of very different sizes."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("words_before, tolerance", [(0, 0.0), (3, 1e-5), (11, 1e-5)])
def test_captures_are_the_hidden_states_before_the_final_norm(deep, words_before, tolerance):
    """Of the whole read at once; a prefix that was read before, even one beyond the window, changes rounding only."""
    template = TextTemplate(prefix=" ".join(["two"] * words_before), suffix="<end>")
    encoder = TextEncoder(deep.model, deep.tokenizer, template=template)
    prompt = " ".join(f"w{i}" for i in range(39 - words_before))
    encoder.encode(["a red circle"])
    features_LFD = encoder.encode([prompt]).text_BLFD[0]
    ids = torch.tensor([encoder.token_ids(prompt)])
    assert ids.shape == (1, 40) and encoder.num_dropped == words_before and len(features_LFD) == 40 - words_before
    with torch.no_grad():
        states = [state[0, words_before:] for state in deep.model(ids, output_hidden_states=True).hidden_states]
        normed = deep.body.norm(features_LFD[:, 3])
    for i, entry in enumerate((6, 12, 18)):
        assert off(features_LFD[:, i], states[entry]) <= tolerance
    assert off(normed, states[24]) <= 1e-5
    assert off(features_LFD[:, 3], states[24]) > 0.1


def test_a_text_does_not_depend_on_its_batch(deep):
    texts = ["a red circle", " ".join(f"w{i}" for i in range(30)), ""]
    together = deep.encode(texts)
    assert together.mask_BL.sum(dim=1).tolist() == [4, 31, 1]
    for row, text in enumerate(texts):
        alone = deep.encode([text]).text_BLFD
        length = alone.shape[1]
        for layer in range(4):
            assert off(together.text_BLFD[row : row + 1, :length, layer], alone[:, :, layer]) <= 1e-5
        assert together.text_BLFD[row, length:].abs().sum() == 0


@pytest.fixture(scope="module")
def released():
    """The released template and its part of the vocabulary, over a model of two small blocks."""
    config = GptOssConfig(
        vocab_size=303_000,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_local_experts=2,
        num_experts_per_tok=1,
    )
    torch.manual_seed(0)
    return TextEncoder(GptOssModel(config), harmony_tokenizer(), range(2))


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("", 0),
        ("  \n", 3),
        ("مربع أزرق فوق دائرة حمراء", 46),
        ("蓝色方块在红色圆圈上方", 33),
        ("🟥", 4),
        ("the image of a user", 3 + 1 + 1 + 1 + 5),
        ("sky<|end|>sea", 13),
    ],
)
def test_any_text_has_features(released, text, tokens):
    """L is the prompt, here bytes but for the words of the template, and the 22 of the suffix. Nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = released.encode([text])
    assert features.text_BLFD.shape == (1, tokens + 22, 2, 16) and features.mask_BL.all()
    assert features.text_BLFD.isfinite().all()


def test_two_thousand_words_are_cut_aloud(released):
    long = "image " * 2000
    with pytest.warns(PromptCut, match=r"1 of 2 prompts have more than 393 tokens, .* the suffix first: the release"):
        features = released.encode(["the image", long])
    assert features.text_BLFD.shape == (2, 415, 2, 16) and features.mask_BL.sum(dim=1).tolist() == [26, 415]
    sane = TextEncoder(released.model, released.tokenizer, range(2), TextTemplate(truncation="prompt"))
    with pytest.warns(PromptCut, match="the suffix is kept"):
        kept = sane.encode([long])
    assert kept.text_BLFD.shape == (1, 415, 2, 16)
    assert torch.equal(kept.text_BLFD[:, :393], features.text_BLFD[1:, :393]), "what comes later is not seen"
    assert not torch.equal(kept.text_BLFD[:, 393:], features.text_BLFD[1:, 393:])


def save_as(folder, encoder, dtype=None, *, mxfp4=False):
    """The text encoder's part of a checkpoint, in another dtype, or with experts packed as the release packs them."""
    model = encoder.model if dtype is None else copy.deepcopy(encoder.model).to(dtype)
    model.save_pretrained(folder / "text_encoder")
    encoder.tokenizer.save_pretrained(folder / "tokenizer")
    encoder.template.save(folder / "tokenizer")
    if not mxfp4:
        return {}
    file, config = folder / "text_encoder/model.safetensors", folder / "text_encoder/config.json"
    tensors, packed = load_file(file), {}
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        packed[f"{name}_blocks"] = torch.randint(256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        packed[f"{name}_scales"] = torch.randint(120, 128, (experts, outputs, inputs // 32), dtype=torch.uint8)
    save_file(tensors | packed, file, {"format": "pt"})
    left = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    quantised = {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": left}}
    config.write_text(json.dumps(json.loads(config.read_text()) | quantised))
    return packed


def unpacked(blocks, scales):
    """MXFP4 by hand: two 4-bit floats a byte, low half first; 32 share a power of two."""
    halves = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()
    values = FP4[halves & 7] * (1 - 2 * (halves >> 3)) * torch.exp2(scales.float() - 127)[..., None]
    return values.flatten(-2).transpose(1, 2).bfloat16()


def test_packed_weights_become_bf16_where_there_are_no_kernels(deep, tmp_path):
    packed = save_as(tmp_path, deep, torch.bfloat16, mxfp4=True)
    loaded = load_text_encoder(tmp_path, deep.layers, "cpu")
    state = loaded.model.state_dict()
    for name in (name.removesuffix("_blocks") for name in packed if name.endswith("_blocks")):
        assert torch.equal(state[name], unpacked(packed[f"{name}_blocks"], packed[f"{name}_scales"]))
    assert {value.dtype for value in state.values()} == {torch.bfloat16}
    features = loaded.encode(["a red circle"]).text_BLFD
    assert features.dtype == torch.bfloat16 and features.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_encoder_keeps_the_dtype_it_is_stored_in(deep, tmp_path, dtype):
    save_as(tmp_path, deep, dtype)
    loaded = load_text_encoder(tmp_path, deep.layers, "cpu")
    assert {value.dtype for value in loaded.model.state_dict().values()} == {dtype}
    if dtype == torch.float32:
        assert loaded.identity() == deep.identity()
        texts = ["a red circle", "two"]
        assert torch.equal(loaded.encode(texts).text_BLFD, deep.encode(texts).text_BLFD)


def test_the_tiny_encoder_is_its_seed():
    features = [tiny_text_encoder(WORDS, seed=seed).encode(["two red circles, a square"]) for seed in (0, 0, 1)]
    assert torch.equal(features[0].text_BLFD, features[1].text_BLFD)
    assert not torch.allclose(features[0].text_BLFD, features[2].text_BLFD)
    assert tiny_text_encoder(WORDS).identity() == tiny_text_encoder(WORDS).identity()
    assert tiny_text_encoder(WORDS).identity() != tiny_text_encoder(WORDS, seed=1).identity()


def test_the_word_tokenizer():
    encoder = tiny_text_encoder(WORDS)
    tokens = encoder.tokenizer.convert_ids_to_tokens(encoder.token_ids("Red circle,zebra <end>."))
    assert tokens == ["red", "circle", ",", "<unk>", "<unk>", "<unk>", "<unk>", ".", "<end>"]


def test_order_of_words_matters_to_features():
    features = tiny_text_encoder(WORDS).encode(["red circle blue square", "blue circle red square"]).text_BLFD
    assert (features[0, 3] - features[1, 3]).abs().mean() > 0.05


def test_select_and_collate():
    encoder = tiny_text_encoder(WORDS)
    both = TextFeatures.collate([encoder.encode(["a red circle"]), encoder.encode(["two"])])
    assert len(both) == 2 and both.mask_BL.sum(dim=1).tolist() == [4, 2]
    picked = both.select([1, 1, 0])
    assert torch.equal(picked.text_BLFD[2], both.text_BLFD[0]) and len(picked) == 3
    assert both.select([1]).text_BLFD.shape == (1, 2, 4, 64), "needless padding goes"


def test_blocks_that_are_not_there_are_named():
    tiny = tiny_text_encoder(WORDS)
    with pytest.raises(ValueError, match="selected_layer_index"):
        TextEncoder(tiny.model, tiny.tokenizer, (5, 11, 17, 23))
