"""What is a caption and what is not: refusals, loops, other languages, lists, and texts kept letter for letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from lens_core.templates import TemplateProblem
from rubrics.captions import KINDS, WORDS, Caption, CaptionTemplate, fault_of, repetition

DENSE = (
    "A narrow street in an old town on a bright morning, seen from the height of a child. Two bicycles lean against "
    "a yellow wall on the left; a grey cat sleeps in the basket of the nearer one. Above the door of a bakery a wooden "
    'sign reads "Boulangerie Lefèvre" in white letters, and a smaller one below it says "営業中". A woman in a red coat'
    " walks away from us with a loaf under her arm, and her shadow falls long across the wet cobblestones."
)


def test_a_good_caption_has_no_fault():
    assert fault_of(DENSE, "dense") is None
    assert fault_of("Two bicycles against a yellow wall.", "brief") is None


@pytest.mark.parametrize(
    "reply",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I can\u2019t assist with identifying people in this image.",
        "Sorry, this picture cannot be described.",
        "I cannot describe this image.",
        "As an AI language model, I do not see pictures.",
        "Unfortunately, I am unable to view images.",
        "The picture seems to show a person, but I can't identify them from the image, so this is all.",
    ],
)
def test_refusals_are_known(reply):
    fault = fault_of(reply, "dense")
    assert fault is not None and fault.status == "refusal"


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda text: " ".join([text] * 3), "repeats itself"),
        (lambda text: text + " a red coat and" * 12, "repeats itself"),
        (lambda text: text + " " + "ha" * 40, "repeats itself"),
        (lambda text: "- " + text.replace(". ", "\n- "), "a list"),
        (lambda text: "Here is the caption: " + text, "a heading"),
        (lambda text: "**Caption** " + text, "a heading"),
        (lambda text: " ".join(text.split()[:10]), "10 words; 20 are the least"),
        (lambda text: " ".join(f"thing{number} of the" for number in range(200)), "600 words; 500 are the most"),
        (lambda text: text.replace('"', "") + " There is no text in the picture.", "speaks of text"),
    ],
)
def test_planted_faults_are_found_and_named(spoil, reason):
    fault = fault_of(spoil(DENSE), "dense")
    assert fault is not None and fault.status == "invalid" and reason in fault.reason


@pytest.mark.parametrize(
    "reply",
    [
        "Eine enge Straße in einer alten Stadt an einem hellen Morgen, zwei Fahrräder lehnen links an einer gelben Wand"
        " und eine graue Katze schläft im Korb des vorderen, während eine Frau in Rot die Straße hinuntergeht.",
        "Une rue étroite dans une vieille ville par un matin clair, deux vélos appuyés contre un mur jaune, un chat"
        " gris qui dort dans le panier, une femme en rouge qui marche avec un pain sous le bras vers la place.",
        "Una calle estrecha de una ciudad antigua en una mañana clara, dos bicicletas apoyadas contra una pared"
        " amarilla, un gato gris duerme en la cesta y una mujer de rojo camina con un pan bajo el brazo.",
        "清晨的老城小巷里 两辆自行车靠在左边的黄色墙上 一只灰猫睡在前面那辆车的篮子里 一位穿红外套的女士抱着面包走远。",
    ],
    ids=["German", "French", "Spanish", "Chinese"],
)
def test_captions_are_in_english(reply):
    fault = fault_of(reply, "dense")
    assert fault is not None and "not in English" in fault.reason


@given(st.text(st.characters(categories=("L", "N"), max_codepoint=0xFFFF), min_size=1, max_size=40))
def test_a_quoted_text_of_any_script_is_kept_and_does_not_make_a_caption_foreign(text):
    caption = Caption.of(DENSE.replace("営業中", text))
    assert fault_of(caption.text, "dense") is None or "repeats" in fault_of(caption.text, "dense").reason  # type: ignore[union-attr]
    assert caption.quotations[1] == Caption.of(text).text


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), max_size=60))
def test_repetition_is_a_share_and_grows_with_a_second_copy(words):
    assert 0 <= repetition(words) <= repetition(words * 2) + 1e-9 <= 1 + 1e-9


def test_repetition_by_hand():
    assert repetition(["one", "two", "three", "four", "five", "six", "seven", "eight"]) == 0
    assert repetition(("one two three four " * 2).split()) == 1 - 4 / 5


def test_messages_name_kind_bound_and_what_was_refused():
    template = CaptionTemplate()
    for kind in KINDS:
        system, user = template.messages(kind)
        assert str(WORDS[kind][1]) in user and "English" in system
        assert "it repeats itself" in template.messages(kind, "it repeats itself")[1]
        assert template.messages(kind, "it repeats itself")[0] == system
    assert template.messages("dense")[0] == template.messages("brief")[0]  # so that servers keep the picture's prefix


def test_templates_that_cannot_be_used(tmp_path):
    with pytest.raises(RecipeProblem, match=r"--template .*none.j2 cannot be read"):
        CaptionTemplate(tmp_path / "none.j2")
    (tmp_path / "a.j2").write_text("{{ part }} {{ knid }}")
    with pytest.raises(TemplateProblem, match=r"unknown variable knid.*did you mean 'kind'"):
        CaptionTemplate(tmp_path / "a.j2")
    (tmp_path / "b.j2").write_text('{% if part == "user" %}Say what you see.{% endif %}')
    with pytest.raises(TemplateProblem, match='nothing for part "system"'):
        CaptionTemplate(tmp_path / "b.j2")
