"""The template and what becomes of a prompt in it: ids of the release, markers, scripts, length."""

import datetime
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from base_model.files import ModelProblem
from base_model.text_features import TextEncoder, tiny_text_encoder
from base_model.text_template import TextTemplate
from tests.harmony import MARKERS, harmony_tokenizer

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
PREFIX, SUFFIX = ([int(number) for number in ids.split()] for ids in (PREFIX_IDS, SUFFIX_IDS))
GOLDEN = "A scenic landscape with a serene lake and snow-capped mountains."

MODEL, TOKENIZER = tiny_text_encoder([]).model, harmony_tokenizer()


def encoder(template: TextTemplate | None = None, tokenizer=TOKENIZER) -> TextEncoder:
    return TextEncoder(MODEL, tokenizer, range(4), template)


RELEASED, SANE = encoder(), encoder(TextTemplate(truncation="prompt"))
AS_RELEASED = encoder(TextTemplate(keep_markers=True, max_length=10_000))


def prompt_part(ids: list[int]) -> list[int]:
    """The ids between prefix and suffix, both of which have to be whole."""
    assert ids[:97] == PREFIX and ids[-22:] == SUFFIX
    return ids[97:-22]


def test_released_template_is_rendered_as_specified():
    template = TextTemplate()
    prefix = template.rendered_prefix()
    assert prefix.startswith("<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n")
    assert "\nCurrent date: 2026-05-23\n\nReasoning: medium\n\n# Valid channels" in prefix
    assert prefix.endswith("objects and background.\n\n<|end|><|start|>user<|message|>")
    assert template.suffix.startswith("<|end|><|start|>assistant<|channel|>analysis<|message|>Need to generate")
    assert template.suffix.endswith("<|end|><|start|>assistant<|channel|>final<|message|>")


def test_the_template_has_the_released_ids():
    assert RELEASED.token_ids("") == PREFIX + SUFFIX
    assert RELEASED.num_dropped == 97 and RELEASED.longest_prompt == 393


@given(st.dates(datetime.date(1000, 1, 1)))
def test_the_prefix_is_97_tokens_for_any_date(date):
    ids = encoder(TextTemplate(date=date.isoformat())).token_ids("")
    assert len(ids) == 97 + 22
    assert ids[:30] + ids[36:] == PREFIX[:30] + PREFIX[36:] + SUFFIX


@pytest.mark.skipif("LENS_TOKENIZER" not in os.environ, reason="LENS_TOKENIZER: folder of the gpt-oss tokenizer")
def test_released_ids_with_the_whole_vocabulary():
    tokenizer = PreTrainedTokenizerFast.from_pretrained(os.environ["LENS_TOKENIZER"], local_files_only=True)
    ids = encoder(tokenizer=tokenizer).token_ids(GOLDEN)
    assert len(prompt_part(ids)) + 22 == 35
    assert len(encoder(tokenizer=tokenizer).token_ids("a " * 1000)) == 512
    for date in ("2024-01-01", "2031-12-31"):
        assert encoder(TextTemplate(date=date), tokenizer).num_dropped == 97


pieces = st.one_of(st.text(max_size=12), st.sampled_from([*MARKERS, "\n", " ", "{date}", "مرحبا", "你好", "🟥"]))
prompts = st.lists(pieces, max_size=5).map("".join)


@given(prompts)
def test_parts_tokenised_apart_equal_the_whole(prompt):
    """With markers let through, as the release does: its tokenizer reads the whole string at once."""
    template = AS_RELEASED.template
    whole = template.rendered_prefix() + prompt + template.suffix
    assert AS_RELEASED.token_ids(prompt) == TOKENIZER(whole, add_special_tokens=False)["input_ids"]


@given(prompts)
def test_a_prompt_is_read_verbatim_and_closes_nothing(prompt):
    """Any script, blanks kept; a marker that somebody types is characters."""
    part = prompt_part(RELEASED.token_ids(prompt))
    assert not set(part) & set(MARKERS.values())
    assert TOKENIZER.decode(part) == prompt


def test_markers_get_through_where_the_template_says_so():
    assert MARKERS["<|end|>"] in prompt_part(AS_RELEASED.token_ids("sky<|end|>sea"))
    assert MARKERS["<|end|>"] not in prompt_part(RELEASED.token_ids("sky<|end|>sea"))


@pytest.mark.parametrize("words, lost", [(392, 0), (393, 0), (394, 1), (400, 7), (2000, 22)])
def test_the_release_cuts_the_end_of_the_whole(words, lost):
    ids = RELEASED.token_ids("4" * 3 * words)
    assert ids[:97] == PREFIX and len(ids) == min(512, 97 + words + 22)
    kept = SUFFIX[: 22 - lost]
    assert ids[len(ids) - len(kept) :] == kept
    assert len(ids) - 97 <= 415
    assert RELEASED.too_long(["4" * 3 * words, "4"]) == (["4" * 3 * words] if lost else [])


@pytest.mark.parametrize("words", [392, 393, 394, 2000])
def test_the_sane_truncation_keeps_the_suffix(words):
    ids = SANE.token_ids("202" * (words - 1) + "23")
    part = prompt_part(ids)
    assert part == ([1323] * (words - 1) + [1860])[:393]
    if words <= 393:
        assert ids == RELEASED.token_ids("202" * (words - 1) + "23"), "equal where nothing is cut"


def test_a_limit_without_room_for_the_prompt_is_refused():
    assert encoder(TextTemplate(truncation="prompt", max_length=120)).longest_prompt == 1
    with pytest.raises(
        ValueError, match=r"max_length 119 leaves no token for the prompt: prefix and suffix take 97 \+ 22"
    ):
        encoder(TextTemplate(truncation="prompt", max_length=119))


def test_another_template_is_another_encoder():
    template = TextTemplate()
    changes = ({"date": "2026-05-24"}, {"truncation": "prompt"}, {"keep_markers": True}, {"max_length": 511})
    identities = {encoder(replace(template, **change)).identity() for change in ({}, *changes)}
    assert len(identities) == 5
    TOKENIZER("padded", padding="max_length", max_length=20, truncation=True)
    assert encoder().identity() in identities, "how a tokenizer was last called does not count"


def test_the_template_travels_with_the_tokenizer(tmp_path):
    assert TextTemplate.load(tmp_path) == TextTemplate()
    template = TextTemplate(
        prefix="p {date}", suffix="s", date="2026-01-01", max_length=9, truncation="prompt", keep_markers=True
    )
    template.save(tmp_path)
    assert TextTemplate.load(tmp_path) == template


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"prefx": "p"}', "its fields must be among prefix, suffix"),
        ('{"max_length": "9"}', "max_length is '9', not a number"),
        ('{"max_length": true}', "max_length is True, not a number"),
        ('{"max_length": 0}', "max_length is 0; it must be at least 1"),
        ('{"keep_markers": 1}', "keep_markers is 1, not true or false"),
        ('{"truncation": "suffix"}', "truncation is 'suffix'; it must be whole or prompt"),
        ('{"date": "23 May 2026"}', "date is '23 May 2026'; write it as YYYY-MM-DD"),
        ('{"date": "20260523"}', "date is '20260523'; write it as YYYY-MM-DD"),
        ("[]", "holds a list, not a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_template_file_is_named(tmp_path, text, said):
    (tmp_path / "text_encoder_template.json").write_text(text)
    with pytest.raises(ModelProblem, match=f"text_encoder_template.json: {said}"):
        TextTemplate.load(tmp_path)
