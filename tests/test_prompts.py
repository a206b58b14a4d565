"""`lens-rl prompts`: sets built, counted and shown as a user does; sets in a recipe; the set that ships."""

import hashlib
import itertools
import json
import sqlite3
from collections import Counter
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lens_core.recipes import RecipeProblem
from lens_rl.prompts import load_splits
from lens_rl.recipe import Prompts
from pipelines.cli import app
from pipelines.prompts import Order, build_set, pass_rates_of, read_set, some
from rubrics.rubric import Rubric
from taxonomy.briefs import briefs
from taxonomy.faithful import unstated
from taxonomy.near_duplicates import BOUND, jaccard, word_triples
from taxonomy.prompt_set import find_set, load_prompts, manifest_of, set_hash, split_of_prompt, write_prompts
from taxonomy.statistics import statistics
from taxonomy.tree import load_any_tree
from tests.chat_server import completion, serving
from tests.small_tree import write_small_tree
from tests.test_build import good

RUBRIC = {
    "name": "small",
    "facts": ["thing", "colour", "text"],
    "criteria": [
        {"name": "thing", "kind": "object", "text": "The {{ thing }} can be seen.", "when": "thing is defined"},
        {"name": "colour", "kind": "colour", "text": "It is {{ colour }}.", "when": "colour is defined"},
        {"name": "whole", "kind": "structure", "text": "The picture holds together."},
    ],
}


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "rubric.yaml").write_text(yaml.safe_dump(RUBRIC))
    return str(write_small_tree(tmp_path))


def order(tree, name="set.jsonl", **changes):
    folder = Path(tree).parent
    return Order(tree, folder / name, rubric=str(folder / "rubric.yaml"), **changes)


def run(*words):
    result = CliRunner().invoke(app, ["prompts", *map(str, words)])
    return result.exit_code, result.output


def test_a_set_is_built_with_criteria_facts_and_manifest(tree):
    wanted = order(tree)
    manifest = build_set(wanted)
    prompts = load_prompts(wanted.out)

    assert manifest == json.loads(manifest_of(wanted.out).read_text())
    assert manifest["set"] == set_hash(prompts) == hashlib.sha256(wanted.out.read_bytes()).hexdigest()
    assert (manifest["prompts"], manifest["seed"], manifest["tree"]) == (len(prompts), 0, "small")
    assert {name: row["prompts"] for name, row in manifest["counts"]["categories"].items()} == {"beasts": 9, "signs": 3}
    for prompt in prompts:
        names = [criterion.name for criterion in prompt.criteria]
        assert names == ["thing", *(["colour"] if "colour" in prompt.facts else []), "whole"]
        assert prompt.facts["thing"] in prompt.text
    assert build_set(wanted) == manifest
    assert build_set(replace(wanted, seed=1))["set"] != manifest["set"]


@pytest.mark.parametrize("name", ["set.parquet", "set.jsonl.gz", "set.jsonl"])
def test_every_form_of_a_file_holds_the_same_set(tree, name):
    written = order(tree, name)
    manifest = build_set(written)

    again = written.out.with_name("again.jsonl")
    assert write_prompts(again, load_prompts(written.out)) == manifest["set"]
    assert load_prompts(again) == load_prompts(written.out)
    first = written.out.read_bytes()
    build_set(written)
    assert written.out.read_bytes() == first


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.parquet", b"no table", "is no Parquet file"),
        ("set.jsonl.gz", b"no gzip", "is no whole gzip file"),
        ("set.jsonl.gz", b"\x1f\x8b\x08\x00", "is no whole gzip file"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeProblem, match=message):
        load_prompts(tmp_path / name)


def test_a_row_of_a_table_is_checked_like_a_line(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": ["a cow", "a hen"], "criteria": [None, '[{"name": "a"}]']})
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(RecipeProblem, match=r"set\.parquet:2: criteria\.0\.text: Field required"):
        load_prompts(tmp_path / "set.parquet")


def test_subsets(tree):
    whole = build_set(order(tree))
    sets = {subset: order(tree, f"{subset}.jsonl", subset=subset) for subset in ("half", "quarter", "without-text")}
    for wanted in sets.values():
        build_set(wanted)
    prompts = load_prompts(order(tree).out)

    assert load_prompts(sets["half"].out) == prompts[:6]
    assert load_prompts(sets["quarter"].out) == prompts[:3]
    assert load_prompts(sets["without-text"].out) == [p for p in prompts if "text" not in p.dimensions]
    assert whole["prompts"] == 12


def test_pass_rates_come_from_a_file_or_a_run(tree, tmp_path):
    build_set(order(tree))
    prompts = load_prompts(order(tree).out)
    (tmp_path / "rates.json").write_text(json.dumps({prompts[0].id: 0.5, prompts[1].id: 1}))
    (tmp_path / "run").mkdir()
    with sqlite3.connect(tmp_path / "run" / "verdicts-rank0.sqlite") as store:
        store.execute("CREATE TABLE verdicts (prompt_id TEXT, value INTEGER)")
        rows = [(prompts[0].id, 1), (prompts[0].id, 0), (prompts[0].id, None), (prompts[1].id, 1), ("x", None)]
        store.executemany("INSERT INTO verdicts VALUES (?, ?)", rows)

    assert pass_rates_of(tmp_path / "run") == pass_rates_of(tmp_path / "rates.json")
    manifest = build_set(order(tree, "more.jsonl", count=40, pass_rates=tmp_path / "run"))
    assert manifest["adapted"] is True and manifest["prompts"] == 40
    more = load_prompts(tmp_path / "more.jsonl")
    assert {split_of_prompt(p) for p in more if p.facts["item"] == "cow"} == {
        split_of_prompt(p) for p in prompts if p.facts["item"] == "cow"
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "--tree", "lenz", "--out", "x.jsonl"], "unknown tree 'lenz' (did you mean 'lens'?)"),
        (["build", "--tree", "shapes", "--out", "x.jsonl"], "--count: say how many prompts to draw"),
        (["build", "--tree", "shapes", "--count", "5", "--out", "x.csv"], "x.csv is no prompt file"),
        (["build", "--tree", "shapes", "--count", "5", "--out", "x.txt"], "are written as .jsonl"),
        (["build", "--tree", "SMALL", "--out", "x.jsonl"], "there is no rubric 'small'"),
        (["build", "--tree", "SMALL", "--rubric", "lens", "--subset", "halb", "--out", "x.jsonl"], "mean 'half'?"),
        (["build", "--tree", "SMALL", "--rubric", "lens", "--count", "50", "--out", "x.jsonl"], "add items"),
        (["build", "--tree", "SMALL", "--rubric", "lens", "--pass-rates", "no", "--out", "x.jsonl"], "neither a run"),
        (
            ["build", "--tree", "SMALL", "--rubric", "lens", "--benchmark", "no.txt", "--out", "x.jsonl"],
            "cannot be read",
        ),
        (["stats", "lens-rl-9k"], "unknown prompt set 'lens-rl-9k' (did you mean 'lens-rl-8k'?)"),
        (["show", "absent.jsonl"], "cannot be read"),
    ],
)
def test_mistakes_on_the_command_line_are_named_before_anything_is_written(tree, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    code, output = run(*[tree if word == "SMALL" else word for word in words])

    assert code == 1 and message in " ".join(output.split()), output
    assert sorted(tmp_path.iterdir()) == before


def test_the_verbs_print_what_they_did(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = run("build", "--tree", tree, "--rubric", "rubric.yaml", "--out", "set.jsonl", "--json")
    assert code == 0 and json.loads(output[output.index("{") :])["prompts"] == 12

    code, output = run("stats", "set.jsonl", "--html", "page.html", "--json")
    assert code == 0
    counts = json.loads(output)
    assert (counts["prompts"], counts["categories"]) == (12, {"beasts": 9, "signs": 3})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "of the farm" in page and "http" not in page.lower().replace("http-equiv", "")
    for prompt in some(load_prompts(tmp_path / "set.jsonl"), 10, None):
        assert prompt.text.replace('"', "&quot;") in page

    code, output = run("show", "set.jsonl", "-n", "2", "--category", "signs")
    assert code == 0 and output.count("signs:") == 2 and "- whole: The picture holds together." in output
    code, output = run("show", "set.jsonl", "--category", "sign")
    assert code == 1 and "no prompt is of category 'sign' (did you mean 'signs'?)" in output


def test_a_model_at_an_endpoint_writes_a_set(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replies = [0]

    def reply(number, body):
        wanted = json.loads(body["messages"][1]["content"])
        replies[0] += len(wanted)
        return completion(json.dumps({"prompts": [good(one) for one in wanted]}))

    words = ["build", "--tree", tree, "--rubric", "rubric.yaml", "--out", "set.jsonl", "--writer", "model=m"]
    with serving(reply) as server:
        code, output = run(*words, "--writer", f"base_url={server.url}")

    assert code == 0, output
    assert len(load_prompts(tmp_path / "set.jsonl")) == 12 <= replies[0]
    assert json.loads((tmp_path / "set.manifest.json").read_text())["writer"].startswith("m ")
    assert not (tmp_path / "set.jsonl.part").exists()
    code, output = run(*words[:-2], "--writer", "offlin")
    assert code == 1 and "--writer offlin: write it as field=value" in output
    code, output = run(*words[:-2], "--writer", "modell=m")
    assert code == 1 and "did you mean 'model'" in output


def test_the_page_escapes_what_a_prompt_says(tmp_path):
    (tmp_path / "set.jsonl").write_text(json.dumps({"text": "<script>x</script>", "category": "<b>"}) + "\n")
    code, _ = run("stats", tmp_path / "set.jsonl", "--html", tmp_path / "page.html")

    page = (tmp_path / "page.html").read_text()
    assert code == 0 and "<script>" not in page and "<b>&lt;b&gt;</b>" in page


def test_a_tree_of_slots_says_its_prompts_itself(tmp_path):
    manifest = build_set(Order("shapes", tmp_path / "shapes.jsonl", count=60, seed=7))

    prompts = load_prompts(tmp_path / "shapes.jsonl")
    assert manifest["writer"] == "the tree shapes itself"
    assert len(prompts) == 60 and all(prompt.criteria for prompt in prompts)


# The set that ships.


@pytest.fixture(scope="module")
def shipped():
    return read_set("lens-rl-8k")


@pytest.fixture(scope="module")
def lens():
    return load_any_tree("lens")


def test_the_shipped_set_is_what_its_manifest_says(shipped, lens):
    manifest = json.loads(manifest_of(find_set("lens-rl-8k")).read_text())

    assert len(shipped) == manifest["prompts"] == 8406
    assert manifest["set"] == set_hash(shipped)
    assert manifest["tree_hash"] == lens.hash
    assert manifest["rubric"]["hash"] == Rubric.load("lens").hash
    counts = Counter(prompt.category for prompt in shipped)
    assert all(abs(counts[category.name] - category.quota * 8406) < 1 for category in lens.categories)
    assert len({prompt.facts["item"] for prompt in shipped}) == 8406
    assert 9 <= sum(len(prompt.criteria) for prompt in shipped) / 8406 <= 12


def test_every_shipped_prompt_states_its_dimensions(shipped, lens):
    for prompt, brief in zip(shipped, briefs(lens, 8406, 0), strict=True):
        said = replace(brief, facts=prompt.facts, dimensions=prompt.dimensions)
        assert prompt.id == brief.id and unstated(prompt.text, said) == {}


def test_no_two_shipped_prompts_are_near_duplicates(shipped):
    """All pairs: two texts at the bound share one of the rarer half of their triples, in an order common to all."""
    triples = [word_triples(prompt.text) for prompt in shipped]
    seen = Counter(triple for one in triples for triple in one)
    holders: dict[tuple[str, ...], list[int]] = {}
    for number, one in enumerate(triples):
        for triple in sorted(one, key=lambda triple: (seen[triple], triple))[: len(one) - ceil(BOUND * len(one)) + 1]:
            holders.setdefault(triple, []).append(number)
    pairs = {pair for group in holders.values() for pair in itertools.combinations(group, 2)}
    assert len(pairs) > 1000
    assert max(jaccard(triples[a], triples[b]) for a, b in pairs) < BOUND


def test_a_part_of_the_shipped_set_is_rebuilt_to_the_same_prompts(shipped, tmp_path):
    build_set(Order("lens", tmp_path / "part.jsonl", count=400))

    assert load_prompts(tmp_path / "part.jsonl") == shipped[:400]


@pytest.mark.slow
def test_the_shipped_set_is_rebuilt_to_the_same_hash(tmp_path):
    manifest = json.loads(manifest_of(find_set("lens-rl-8k")).read_text())

    assert build_set(Order("lens", tmp_path / "set.jsonl.gz")) == manifest


def test_a_set_in_a_recipe_is_split_by_ids(shipped):
    splits = load_splits(Prompts(set="lens-rl-8k", validation=48, test=256), Rubric.load("lens"))

    ids = {name: {p.id for p in getattr(splits, name)} for name in ("train", "validation", "test")}
    assert not ids["train"] & ids["validation"] and not ids["train"] & ids["test"]
    assert not ids["validation"] & ids["test"]
    assert (len(splits.validation), len(splits.test)) == (48, 256)
    assert 0.78 < len(splits.train) / len(shipped) < 0.82
    smaller = load_splits(Prompts(set="lens-rl-8k", validation=1, test=1), Rubric.load("lens"))
    assert smaller.train == splits.train


def test_another_rubric_writes_the_criteria_of_a_set_anew(tree, tmp_path):
    """The reward is then that rubric's; with the one the set was built with, the criteria of the file are its own."""
    build_set(order(tree))
    own = tmp_path / "own.yaml"
    own.write_text(
        "name: own\njudge: judge.j2\nfacts: [subject]\ncriteria:\n"
        '  - {name: there, kind: presence, text: "The picture shows {{ subject }}."}\n'
    )
    choice = Prompts(set=str(order(tree).out), validation=1, test=1)
    first, anew = (load_splits(choice, Rubric.load(name)) for name in (order(tree).rubric, str(own)))
    assert first.train == tuple(p for p in load_prompts(order(tree).out) if p in first.train)
    assert [p.id for p in anew.train] == [p.id for p in first.train]
    for prompt in anew.train:
        assert [c.text for c in prompt.criteria] == [f"The picture shows {prompt.facts['subject']}."]


def test_a_set_too_small_to_be_split_says_so(tree):
    build_set(order(tree))
    with pytest.raises(RecipeProblem, match=r"prompts.set .* prompts in its validation split, and 20 are needed"):
        load_splits(Prompts(set=str(order(tree).out), validation=20, test=1), Rubric.load("lens"))


def test_statistics_count_what_is_there(shipped):
    found = statistics(shipped)

    assert found.prompts == found.categories.total() == found.words_each.total() == 8406
    assert found.kinds["structure"] == 8406
    assert sum(counts.total() for counts in found.sub_categories.values()) == 8406
    assert set(found.dimensions_each) == {1, 2, 3, 4}
