"""A rubric as its author meets it: new, lint, show, try, diff, each by its command, in a folder of one's own."""

import json
import sqlite3

import pytest
from PIL import Image
from typer.testing import CliRunner

from lens_core.records import Criterion, Prompt, Verdict
from lens_rl.judges.backend import Question
from lens_rl.judges.store import Asked, VerdictStore
from lens_rl.shapes.render import render
from lens_rl.shapes.scene import Scene, Thing
from pipelines.cli import app
from pipelines.rubric_diff import Side, difference
from rubrics.rubric import Rubric
from taxonomy.prompt_set import write_prompts
from tests.chat_server import completion, serving

CIRCLE = {"colour": "red", "shape": "circle", "background": "white"}
SQUARE = {"colour": "blue", "shape": "square", "background": "black"}


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["rubric", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a new rubric, and pictures of a red circle and of a blue square on black."""
    monkeypatch.chdir(tmp_path)
    run("new", "my")
    (tmp_path / "pictures").mkdir()
    for facts in (CIRCLE, SQUARE):
        scene = Scene((Thing(facts["shape"], facts["colour"], 10.0, 10.0, 5.0),), facts["background"], (20, 20))
        Image.fromarray(render(scene)).save(tmp_path / "pictures" / f"{facts['shape']}.png")
    prompts = [Prompt("circle", "a red circle", facts=CIRCLE), Prompt("square", "a blue square", facts=SQUARE)]
    write_prompts(tmp_path / "prompts.jsonl", prompts)
    return tmp_path


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def tried(*more):
    result = run("try", "my/rubric.yaml", "--images", "pictures", "--prompts", "prompts.jsonl", "--json", *more)
    return {one["picture"]: one for one in json.loads(result.stdout)}, result.stderr


def test_a_new_rubric_is_sound_and_is_not_written_over(home):
    assert "name: my\n" in (home / "my/rubric.yaml").read_text()
    assert "nothing to find fault with" in run("lint", "my/rubric.yaml").output
    assert "my exists already" in run("new", "my", code=1).output


def test_lint_says_where_and_fails(home):
    edit(home / "my/rubric.yaml", "There is a {{ shape }}.", "Is there a {{ shape }}?")

    result = run("lint", "my/rubric.yaml", code=1)

    lines = (home / "my/rubric.yaml").read_text().splitlines()
    line = 1 + next(number for number, text in enumerate(lines) if "Is there a" in text)
    assert f"my/rubric.yaml:{line}: question: 'shape': it asks; state what holds" in result.output
    (finding,) = json.loads(run("lint", "my/rubric.yaml", "--json", code=1).output)
    assert (finding["code"], finding["line"]) == ("question", line)


def test_lint_takes_facts_from_a_tree_or_from_prompts(home):
    edit(home / "my/rubric.yaml", "when: background is defined", "when: background == 'grey'")

    assert "never" in run("lint", "my/rubric.yaml", code=1).output
    assert "nothing to find fault with" in run("lint", "my/rubric.yaml", "--on", "shapes").output
    assert "never" in run("lint", "my/rubric.yaml", "--on", "prompts.jsonl", code=1).output


def test_lint_says_where_there_are_no_facts(home):
    (home / "plain.txt").write_text("a red circle\n")

    assert "did you mean 'shapes'?" in run("lint", "my/rubric.yaml", "--on", "shape", code=1).output
    assert "none of its prompts has facts" in run("lint", "my/rubric.yaml", "--on", "plain.txt", code=1).output


def test_show_prints_what_a_judge_gets(home):
    shown = json.loads(
        run("show", "my/rubric.yaml", "--prompt", "a blue one", "--fact", "colour=blue", "--json").output
    )
    rubric = Rubric.load("my/rubric.yaml")
    criteria = rubric.criteria("a blue one", {"colour": "blue", "shape": "circle", "background": "white"})

    assert [(one["system"], one["user"]) for one in shown] == [rubric.messages("a blue one", one) for one in criteria]
    page = run("show", "my/rubric.yaml", "--prompt", "a blue one", "--fact", "colour=blue").output
    assert all(one["user"] in page for one in shown) and page.count(shown[0]["system"]) == 1
    assert "facts: colour=blue, shape=circle, background=white" in page
    assert "colour (kind colour, weight 1, requires shape)" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["my/rubric.yaml", "--fact", "color=red"], "has no fact 'color' (did you mean 'colour'?)"),
        (["my/rubric.yaml", "--fact", "colour"], "--fact colour: write it as name=value"),
        (["shapes"], "the prompt has no fact colour"),
        (["your/rubric.yaml"], "rubric file your/rubric.yaml does not exist"),
    ],
)
def test_show_says_what_is_missing(home, arguments, message):
    assert message in run("show", *arguments, "--prompt", "x", code=1).output


def test_try_judges_a_folder_and_asks_nothing_twice(home):
    found, said = tried()

    assert {name: one["reward"] for name, one in found.items()} == {"circle.png": 1.0, "square.png": 1.0}
    assert "8 verdicts on 2 pictures, 0 of them stored: 2 requests, free" in said

    edit(home / "my/rubric.yaml", "The background is {{ background }}.", "The background is all {{ background }}.")
    _, said = tried()
    assert "8 verdicts on 2 pictures, 6 of them stored: 2 requests, free" in said
    assert "all of them stored: nothing to ask" in tried()[1]


def test_try_weighs_and_follows_parents(home):
    """On a picture of the wrong shape: shape fails, colour with it, background (0.5) and structure (1) hold."""
    (home / "pictures/circle.png").unlink()

    found, _ = tried("--fact", "shape=circle")

    assert found["square.png"]["reward"] == pytest.approx(1.5 / 3.5)
    page = run("try", "my/rubric.yaml", "--images", "pictures", "--prompts", "prompts.jsonl", "--fact", "shape=circle")
    assert "shape, colour" in page.output and "0.429" in page.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "--images nowhere: there are no pictures"),
        (
            ["--images", "pictures"],
            "which prompt was it made from? Give --prompts FILE with a line whose id is 'circle'",
        ),
        (["--images", "pictures", "--prompts", "prompts.jsonl", "--judge", "backand=x"], "did you mean 'backend'"),
        (["--images", "pictures", "--prompts", "prompts.jsonl", "--judge", "backend=shape"], "did you mean 'shapes'"),
    ],
)
def test_try_says_what_is_missing(home, arguments, message):
    assert message in run("try", "my/rubric.yaml", *arguments, code=1).output


def test_a_file_that_is_no_picture_is_named(home):
    (home / "pictures/circle.png").write_bytes(b"no picture")

    result = run("try", "my/rubric.yaml", "--images", "pictures", "--prompts", "prompts.jsonl", code=1)

    assert "pictures/circle.png cannot be read as a picture" in result.output


def test_a_judge_of_unknown_price_is_asked_only_with_yes(home, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    with serving(lambda number, body: completion("1", {"1": 0.9, "0": 0.1})) as served:
        judge = ["--judge", "model=m", "--judge", f"base_url={served.url}"]
        common = ["try", "my/rubric.yaml", "--images", "pictures", "--prompts", "prompts.jsonl", *judge]

        refused = run(*common, code=1)
        assert "8 requests, at most" in refused.output and "at an unknown price" in refused.output
        assert "nothing was asked yet: add --yes to go ahead" in refused.output
        assert served.requests == []

        run(*common, "--yes")
        assert len(served.requests) == 8
        run(*common)
        assert len(served.requests) == 8, "stored verdicts are free"


def other_rubric(home):
    """As mine, but with another background, without `structure`, and with one criterion more."""
    (home / "other").mkdir()
    (home / "other/judge.j2").write_text((home / "my/judge.j2").read_text())
    text = (home / "my/rubric.yaml").read_text().partition("  - name: structure")[0]
    text = text.replace('is: "{{ background }}"', "is: grey").replace(
        "The background is {{ background }}.", "The background is grey."
    )
    text += "  - {name: any, kind: object, text: There is an object., check: {kind: present, of: object}}\n"
    (home / "other/rubric.yaml").write_text(text)


def test_diff_says_which_verdicts_change_on_pictures(home):
    other_rubric(home)

    result = run(
        "diff", "my/rubric.yaml", "other/rubric.yaml", "--on", "pictures", "--prompts", "prompts.jsonl", "--json"
    )

    found = json.loads(result.stdout)
    rows = {row["criterion"]: row for row in found["criteria"]}
    assert rows["background"]["yes_to_no"] == 2 and rows["background"]["no_to_yes"] == 0
    assert rows["shape"]["yes_a"] == rows["shape"]["yes_b"] == 2
    assert rows["structure"]["pictures_b"] == 0 and rows["any"]["pictures_a"] == 0
    assert found["reward_a"] == 1.0 and found["reward_b"] == pytest.approx(3 / 3.5)
    assert {(one["picture"], one["criterion"], one["a"], one["b"]) for one in found["turned"]} == {
        ("circle.png", "background", 1, 0),
        ("square.png", "background", 1, 0),
    }
    page = run("diff", "my/rubric.yaml", "other/rubric.yaml", "--on", "pictures", "--prompts", "prompts.jsonl").output
    assert "circle.png: background: yes with A, no with B" in page
    assert "mean reward 1.000 with A, 0.857 with B, on 2 of 2 pictures" in page


CONFIG = """\
name: t
model: shapes
steps: 1
prompts: {file: train.jsonl, validation_file: validation.jsonl, test_file: test.jsonl}
rubric: {path: my/rubric.yaml}
judge: {backend: shapes}
rollout: {sizes: [[20, 20]]}
"""


def a_run(home):
    """A run folder whose store has rubric A's verdicts on two pictures of each training prompt."""
    folder = home / "runs/t"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    prompts = [Prompt("circle", "a red circle", facts=CIRCLE), Prompt("square", "a blue square", facts=SQUARE)]
    for split, some in (("train", prompts), ("validation", []), ("test", [])):
        write_prompts(home / f"{split}.jsonl", some or [Prompt(split, f"a red circle, {split}", facts=CIRCLE)])
    rubric = Rubric.load("my/rubric.yaml")
    judge = f"shapes-2+{rubric.template_hash[:12]}"
    store = VerdictStore(folder / "verdicts-rank0.sqlite")
    for prompt in prompts:
        for picture, fails in (("good", set()), ("bad", {"background", "structure"})):
            image = f"{picture} {prompt.id}"
            questions = [
                Question(one, *rubric.messages(prompt.text, one)) for one in rubric.criteria(prompt.text, prompt.facts)
            ]
            verdicts = [Verdict(q.criterion.name, image, judge, int(q.criterion.name not in fails)) for q in questions]
            store.add(prompt.id, list(zip(map(Asked.of, questions), verdicts, strict=True)))
    store.close()
    return folder


def test_diff_on_a_run_needs_no_picture(home):
    """A heavier weight is computed from what is stored; a changed text has no verdict yet, and is said to have none."""
    folder = a_run(home)
    (home / "b.yaml").write_text((home / "my/rubric.yaml").read_text().replace("weight: 0.5", "weight: 5"))
    (home / "judge.j2").write_text((home / "my/judge.j2").read_text())

    found = json.loads(run("diff", "my/rubric.yaml", "b.yaml", "--on", folder, "--json").stdout)

    assert (found["pictures"], found["rewarded"]) == (4, 4)
    assert found["reward_a"] == pytest.approx((1 + 2 / 3.5) / 2) and found["reward_b"] == pytest.approx((1 + 2 / 8) / 2)
    assert (found["orders"], found["orders_turned"]) == (2, 0)
    assert found["turned"] == []

    (home / "b.yaml").write_text((home / "my/rubric.yaml").read_text().replace("There is a", "There must be a"))
    found = json.loads(run("diff", "my/rubric.yaml", "b.yaml", "--on", folder, "--json").stdout)
    assert {row["criterion"]: row["unjudged"] for row in found["criteria"]} == {
        "shape": 4,
        "colour": 0,
        "background": 0,
        "structure": 0,
    }
    assert found["rewarded"] == 0
    assert "No picture has a reward under both" in run("diff", "my/rubric.yaml", "b.yaml", "--on", folder).output


def test_diff_says_what_is_no_run_and_which_rubric_it_had(home):
    folder = a_run(home)

    assert "no run is here" in run("diff", "shapes", "lens", "--on", home / "x.sqlite", code=1).output
    assert (
        "has no verdict of rubric lens; the run used my/rubric.yaml"
        in run("diff", "lens", "lens", "--on", folder, code=1).output
    )
    with sqlite3.connect(folder / "verdicts-rank0.sqlite") as database:
        assert database.execute("SELECT count(*) FROM verdicts").fetchone() == (16,), "a store is only read"


def test_the_order_of_pictures_of_one_prompt_is_what_a_run_learns_from():
    criteria = (Criterion("a", "x", "k", weight=3.0), Criterion("b", "y", "k"))
    light = (Criterion("a", "x", "k"), Criterion("b", "y", "k", weight=3.0))
    pairs = [
        (name, Side(Prompt(name, "p", criteria=criteria), values), Side(Prompt(name, "p", criteria=light), values))
        for name, values in (("one", {"a": 1, "b": 0}), ("two", {"a": 0, "b": 1}), ("three", {"a": 0, "b": 0}))
    ]

    found = difference(pairs)

    assert (found.orders, found.orders_turned) == (3, 1)
    assert found.reward_a == found.reward_b == pytest.approx(1 / 3)
