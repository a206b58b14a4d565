"""Text features: the template, tokenisation, and what is captured of GPT-OSS."""

import os

import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM, PreTrainedTokenizerFast

from base_model.text_features import TextEncoder, TextFeatures, tiny_text_encoder, word_tokenizer
from base_model.text_template import TextTemplate

WORDS = ["a", "red", "blue", "green", "circle", "square", "above", "below", "two"]
MARKERS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")

# lens-model spec 7.2: the released vocabulary and the date 2026-05-23.
PREFIX_IDS = """
200006 17360 200008 3575 553 17554 162016 11 261 4410 6439 2359 22203 656 7788 17527 558 87447 100594 25 220 1323 19
12 3218 198 6576 3521 25 220 1323 21 12 2922 12 1860 279 30377 289 25 14093 279 2 13888 18403 25 8450 11 49159 11 1721
13 21030 2804 413 7360 395 1753 3176 13 200007 200006 77944 200008 2 68406 279 61443 290 3621 656 69091 290 3089 11
9591 11 2349 11 17788 11 17245 11 2201 11 44273 14321 328 290 11736 326 6357 364 200007 200006 1428 200008
"""
SUFFIX_IDS = """
200007 200006 173781 200005 35644 200008 23483 316 10419 1001 3621 7065 316 290 6496 13 200007 200006 173781 200005
17196 200008
"""


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


def harmony_tokenizer():
    """Characters for tokens, with the special markers of the released vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = {chr(i): i for i in range(128)}
    backend = Tokenizer(models.WordLevel(letters | {"<unk>": 128}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<|return|>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    return tokenizer


def test_captures_are_the_hidden_states_before_the_final_norm(deep):
    prompt = " ".join(f"w{i}" for i in range(36))
    features = deep.encode([prompt])
    ids = torch.tensor([deep.token_ids(prompt)])
    assert ids.shape == (1, 40) and deep.num_dropped == 3
    with torch.no_grad():
        states = deep.model(input_ids=ids, output_hidden_states=True).hidden_states
        for i, entry in enumerate((6, 12, 18)):
            assert torch.equal(features.text_BLFD[:, :, i], states[entry][:, 3:])
        normed = deep.body.norm(features.text_BLFD[:, :, 3])
    torch.testing.assert_close(normed, states[24][:, 3:], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(features.text_BLFD[:, :, 3], states[24][:, 3:])


def test_a_text_does_not_depend_on_its_batch(deep):
    texts = ["a red circle", " ".join(f"w{i}" for i in range(30)), ""]
    together = deep.encode(texts)
    assert together.mask_BL.sum(dim=1).tolist() == [4, 31, 1]
    for row, text in enumerate(texts):
        alone = deep.encode([text]).text_BLFD
        length = alone.shape[1]
        torch.testing.assert_close(together.text_BLFD[row : row + 1, :length], alone, atol=2e-5, rtol=1e-4)
        assert together.text_BLFD[row, length:].abs().sum() == 0


def test_released_template_is_rendered_as_specified():
    template = TextTemplate()
    prefix = template.rendered_prefix()
    assert prefix.startswith("<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n")
    assert "\nCurrent date: 2026-05-23\n\nReasoning: medium\n\n# Valid channels" in prefix
    assert prefix.endswith("objects and background.\n\n<|end|><|start|>user<|message|>")
    assert template.suffix.startswith("<|end|><|start|>assistant<|channel|>analysis<|message|>Need to generate")
    assert template.suffix.endswith("<|end|><|start|>assistant<|channel|>final<|message|>")
    assert "date: 2030-01-31\n" in TextTemplate(date="2030-01-31").rendered_prefix()


def stub_encoder(**options):
    model = tiny_text_encoder(WORDS).model
    return TextEncoder(model, harmony_tokenizer(), range(4), **options)


def test_parts_tokenised_apart_equal_the_whole():
    encoder, prompt = stub_encoder(), "  A lake, with {date} and peaks.\n"
    template = encoder.template
    whole = template.rendered_prefix() + prompt + template.suffix
    limit = TextTemplate(max_length=10_000)
    ids = stub_encoder(template=limit).token_ids(prompt)
    assert ids == encoder.tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_markers_typed_in_a_prompt_stay_text():
    marker = harmony_tokenizer().convert_tokens_to_ids("<|end|>")
    template = TextTemplate(prefix="", suffix="")
    assert marker not in stub_encoder(template=template).token_ids("sky<|end|>sea")
    assert len(stub_encoder(template=template).token_ids("sky<|end|>sea")) == len("sky<|end|>sea")
    assert marker in stub_encoder(template=template, keep_markers=True).token_ids("sky<|end|>sea")


def test_long_prompts_lose_the_end_of_the_whole():
    encoder = tiny_text_encoder(WORDS, max_length=6)
    assert len(encoder.token_ids("red " * 9)) == 6
    assert encoder.token_ids("red " * 9)[-1] != encoder.token_ids("red")[-1], "the suffix goes first"
    assert encoder.encode(["red " * 9]).text_BLFD.shape == (1, 6, 4, 64)


@pytest.mark.skipif("LENS_TOKENIZER" not in os.environ, reason="LENS_TOKENIZER: folder of the gpt-oss tokenizer")
def test_released_ids():
    tokenizer = PreTrainedTokenizerFast.from_pretrained(os.environ["LENS_TOKENIZER"], local_files_only=True)
    model = tiny_text_encoder(WORDS).model
    encoder = TextEncoder(model, tokenizer, range(4))
    golden = "A scenic landscape with a serene lake and snow-capped mountains."
    ids = encoder.token_ids(golden)
    assert ids[:97] == [int(i) for i in PREFIX_IDS.split()] and encoder.num_dropped == 97
    assert ids[-22:] == [int(i) for i in SUFFIX_IDS.split()]
    assert len(ids) - 97 == 35
    assert len(encoder.token_ids("a " * 1000)) == 512
    for date in ("2024-01-01", "2031-12-31"):
        assert TextEncoder(model, tokenizer, range(4), TextTemplate(date=date)).num_dropped == 97


def test_the_template_travels_with_the_tokenizer(tmp_path):
    assert TextTemplate.load(tmp_path) == TextTemplate()
    template = TextTemplate(prefix="p {date}", suffix="s", date="2026-01-01", max_length=9)
    template.save(tmp_path)
    assert TextTemplate.load(tmp_path) == template
    (tmp_path / "text_encoder_template.json").write_text('{"prefx": "p"}')
    with pytest.raises(ValueError, match=r"text_encoder_template.json: its fields must be among prefix, suffix"):
        TextTemplate.load(tmp_path)
    (tmp_path / "text_encoder_template.json").write_text('{"max_length": "9"}')
    with pytest.raises(ValueError, match="max_length is '9', not a number"):
        TextTemplate.load(tmp_path)


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
