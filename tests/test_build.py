"""Sets from item trees: what is near another is written again, benchmarks are kept out, models are asked again."""

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import openai
import pytest

from lens_core.asking import Message, ModelProblem
from lens_core.recipes import RecipeProblem
from taxonomy.briefs import Brief, briefs
from taxonomy.build import build
from taxonomy.english import NUMBERS
from taxonomy.grammar import Grammar
from taxonomy.near_duplicates import BOUND, Leakage, NearDuplicates, jaccard, word_triples
from taxonomy.tree import load_any_tree
from taxonomy.writer import PER_REQUEST, ROUNDS, ModelWriter
from tests.chat_server import completion, serving
from tests.small_tree import write_small_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return load_any_tree(str(write_small_tree(tmp_path_factory.mktemp("tree"))))


def near(text: str, changed: int) -> str:
    words = text.split()
    for place in range(0, 3 * changed, 3):
        words[place] = f"other{place}"
    return " ".join(words)


def test_near_duplicates_are_those_at_the_bound_and_above():
    dice = random.Random(0)
    texts = [" ".join(f"w{dice.randrange(3000)}" for _ in range(40)) for _ in range(300)]
    index = NearDuplicates()
    for number, text in enumerate(texts):
        assert index.nearest(text) is None
        index.add(str(number), text)

    found = dict.fromkeys(range(10), 0)
    for changed, number in itertools.product(found, range(60)):
        copy = near(texts[number], changed)
        similarity = jaccard(word_triples(copy), word_triples(texts[number]))
        nearest = index.nearest(copy)
        assert nearest in (None, str(number))
        assert nearest is None or similarity >= BOUND
        found[changed] += nearest is not None
    assert found[0] == found[1] == found[2] == 60
    assert found[9] == 0


def test_case_and_punctuation_make_no_other_text():
    index = NearDuplicates()
    index.add("a", "A black cow, standing still, in a farmyard after rain.")

    assert index.nearest("a BLACK cow standing still in a farmyard after rain") == "a"


def test_a_benchmark_prompt_inside_a_text_has_leaked():
    leakage = Leakage(["a photo of four clocks and a bench", "a bird"])

    assert leakage.leaked("Outside: a photo of four clocks and a bench, in the sun.") is not None
    assert leakage.leaked("A photo of four benches and a clock.") is None
    assert leakage.leaked("There is a bird on the roof of the house.") is None


def test_a_set_is_the_same_every_time_and_its_first_part_is_the_smaller_set(tree):
    grammar = Grammar.load(tree, 0)
    whole = build(tree, grammar, briefs(tree, 12, 0), 0)

    assert whole == build(tree, grammar, briefs(tree, 12, 0), 0)
    assert build(tree, grammar, briefs(tree, 6, 0), 0).draws == whole.draws[:6]
    assert all(draw.facts["thing"] in draw.text and draw.facts["sub_category"] for draw in whole.draws)
    for one, other in itertools.combinations(whole.draws, 2):
        assert jaccard(word_triples(one.text), word_triples(other.text)) < BOUND


def test_a_benchmark_prompt_is_written_again(tree):
    grammar = Grammar.load(tree, 0)
    before = build(tree, grammar, briefs(tree, 12, 0), 0)
    leaked = before.draws[4].text

    after = build(tree, grammar, briefs(tree, 12, 0), 0, benchmarks=[leaked])

    assert after.refused["benchmark"] >= 1
    assert [draw.id for draw in after.draws] == [draw.id for draw in before.draws]
    assert leaked not in [draw.text for draw in after.draws]


@dataclass
class Careless:
    """A writer with a fixed habit."""

    say: Callable[[Brief], str]
    name: str = "careless"
    batch: int = 4

    def write(self, briefs: Sequence[Brief]) -> list[str]:
        return [self.say(brief) for brief in briefs]


def test_a_writer_that_leaves_out_a_dimension_is_found(tree):
    with pytest.raises(RecipeProblem, match=r"careless left out .*'item': .* in 'nothing about it'"):
        build(tree, Careless(lambda brief: "nothing about it"), briefs(tree, 12, 0), 0)


def test_a_writer_that_repeats_itself_is_given_up(tree):
    everything = "; ".join(
        f"{word} {noun} {action} {place} {relation}"
        for word, noun, action, place, relation in itertools.product(
            ["muddy black", "sleepy white"], ["two cows", "three cows", "cow"], ["chewing hay", "licking its nose"],
            ["standing still"], ["to the left of a wooden bucket", "to the left of a stone trough"],
        )
    )  # fmt: skip
    cow = next(brief for brief in briefs(tree, 12, 0) if brief.facts["item"] == "cow")

    with pytest.raises(RecipeProblem, match="20 texts on 'cow' were near other prompts"):
        build(tree, Careless(lambda brief: everything), [cow, replace(cow, id="another", index=99)], 0)


@dataclass
class Scripted:
    """A model behind the protocol that answers as a test wants, and keeps what it was asked."""

    answer: Any
    name: str = "scripted"
    asked: list[list[dict[str, Any]]] = field(default_factory=list)

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        assert schema is not None
        wanted = json.loads(messages[1]["content"])
        self.asked.append(wanted)
        await asyncio.sleep(0)
        reply = self.answer(len(self.asked), wanted)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, str) else json.dumps({"prompts": reply})


def good(wanted: dict[str, Any]) -> dict[str, str]:
    """A text that holds every fact, and enough further words."""
    facts = dict(wanted["facts"])
    subject = " ".join(filter(None, (facts.pop("number"), facts.pop("attribute", ""), facts.pop("colour", ""))))
    text = f"{subject} {facts.pop('subject')}"
    if "text" in facts:
        text += f' that reads "{facts.pop("text")}"'
    said = f"{text}, {', '.join(facts.values())}, "
    filler = [f"{NUMBERS[1 + place % 9]}{wanted['id'][:5]}{place}" for place in range(max(34 - len(said.split()), 4))]
    return {"id": wanted["id"], "text": said + " ".join(filler)}


def all_good(number, wanted):
    return [good(one) for one in wanted]


def test_a_model_writes_a_set_and_nothing_is_asked_twice(tree, tmp_path):
    model = Scripted(all_good)
    drawn = list(briefs(tree, 12, 0))

    texts = ModelWriter(model, tmp_path / "part").write(drawn)

    assert len(texts) == 12 and len(model.asked) == -(-12 // PER_REQUEST)
    silent = Scripted(lambda number, wanted: AssertionError("asked again"))
    assert ModelWriter(silent, tmp_path / "part").write(drawn) == texts
    other_facts = [replace(brief, facts={**brief.facts, "light": "in moonlight"}) for brief in drawn[:1]]
    fresh = Scripted(all_good)
    ModelWriter(fresh, tmp_path / "part").write(other_facts)
    assert len(fresh.asked) == 1
    assert len(build(tree, ModelWriter(Scripted(all_good), tmp_path / "other"), drawn, 0).draws) == 12


def test_what_is_missing_or_wrong_is_asked_again_with_the_reason(tree, tmp_path):
    def answer(number, wanted):
        texts = [good(one) for one in wanted]
        if number == 1:
            texts[0]["text"] = "too short"
            texts[1]["text"] = texts[1]["text"].replace(wanted[1]["facts"]["subject"], "thing")
            texts[2]["text"] = texts[2]["text"].replace(" ", "\n", 1)
            return texts[:-1]
        return texts

    model = Scripted(answer)
    drawn = list(briefs(tree, PER_REQUEST, 0))
    texts = ModelWriter(model, tmp_path / "part").write(drawn)

    assert len(texts) == PER_REQUEST
    again = {one["id"]: one["wrong before"] for one in model.asked[1]}
    assert len(again) == 4
    assert "28 words too short" in again[drawn[0].id]
    assert "lacks these exact words: item:" in again[drawn[1].id]
    assert "one paragraph" in again[drawn[2].id]
    assert "no text came" in again[drawn[-1].id]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"prompts": {}}', '{"prompts": [{"id": "a"}]}', '{"other": []}'])
def test_half_a_reply_loses_nothing(tree, tmp_path, broken):
    drawn = list(briefs(tree, 12, 0))
    model = Scripted(lambda number, wanted: all_good(number, wanted) if len(wanted) == PER_REQUEST else broken)

    with pytest.raises(ModelProblem, match=rf"left 4 of 12 prompts unwritten after {ROUNDS} rounds.*the same command"):
        ModelWriter(model, tmp_path / "part", concurrency=1).write(drawn)

    assert len((tmp_path / "part").read_text(encoding="utf-8").splitlines()) == PER_REQUEST
    later = Scripted(all_good)
    assert len(ModelWriter(later, tmp_path / "part").write(drawn)) == 12
    assert [len(wanted) for wanted in later.asked] == [4]


def test_a_torn_line_of_the_journal_is_asked_again(tree, tmp_path):
    drawn = list(briefs(tree, 4, 0))
    ModelWriter(Scripted(all_good), tmp_path / "part").write(drawn)
    whole = (tmp_path / "part").read_text(encoding="utf-8")
    (tmp_path / "part").write_text(whole[:-20], encoding="utf-8")

    model = Scripted(all_good)
    ModelWriter(model, tmp_path / "part").write(drawn)

    assert [len(wanted) for wanted in model.asked] == [1]


def test_a_model_that_is_down_keeps_what_it_wrote(tree, tmp_path):
    down = ModelProblem("no quota left")
    model = Scripted(lambda number, wanted: all_good(number, wanted) if number == 1 else down)

    with pytest.raises(ModelProblem, match="no quota left"):
        ModelWriter(model, tmp_path / "part", concurrency=1).write(list(briefs(tree, 12, 0)))

    assert len((tmp_path / "part").read_text(encoding="utf-8").splitlines()) == PER_REQUEST


@dataclass
class OverHttp:
    """A client of the wire that chat servers speak."""

    url: str
    name: str = "m"

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        client = openai.AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0)
        form: Any = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
        reply = await client.chat.completions.create(model="m", messages=list(messages), response_format=form)  # type: ignore[arg-type]
        await client.close()
        return reply.choices[0].message.content or ""


def test_a_set_is_written_over_a_real_connection(tree, tmp_path):
    def reply(number, body):
        assert body["response_format"]["json_schema"]["schema"]["required"] == ["prompts"]
        return completion(json.dumps({"prompts": all_good(number, json.loads(body["messages"][1]["content"]))}))

    with serving(reply) as server:
        built = build(tree, ModelWriter(OverHttp(server.url), tmp_path / "part"), briefs(tree, 12, 0), 0)

    assert len(built.draws) == 12
    assert len(server.requests) >= 2
