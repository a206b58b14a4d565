"""`lens-rl judge compare` and `judge try` as their users run them, on real pictures, a real run and a real server."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lens_core.recipes import RecipeProblem, find_recipe, load_recipe
from lens_core.records import Criterion, Prompt
from lens_rl.job import run_job
from lens_rl.recipe import RECIPES, Judge, RlRecipe
from pipelines.cli import app
from pipelines.judge_sources import named_judge, pictures_in, spread
from rubrics.rubric import Rubric
from taxonomy.prompt_set import write_prompts
from tests.chat_server import completion, serving
from tests.e2e.runs import SMALL, model

JUDGES = """
from lens_core.seeds import seed_of
from lens_rl.judges.backend import Answer, Backend, Capabilities, Reply


class Truth(Backend):
    '''A fair coin a picture and criterion.'''
    identity = "truth"
    def __init__(self, judge): pass
    def prepare(self, image):
        return image.tobytes().hex()
    async def answer(self, picture, questions):
        return Reply(tuple(Answer(self.value(picture, q.criterion.name)) for q in questions))
    def value(self, picture, name):
        return seed_of("truth", picture, name) & 1


class Noisy(Truth):
    '''Repeats the truth or, with probability 0.4, throws a coin of its own: a kappa of 0.6.'''
    identity = "noisy"
    def value(self, picture, name):
        if seed_of("errs", picture, name) / 2**63 < 0.4:
            return seed_of("own", picture, name) & 1
        return super().value(picture, name)
"""
PROMPTS = [
    Prompt(
        f"p{n}", f"prompt {n}", criteria=tuple(Criterion(f"c{k}", f"It holds {k}.", f"kind{k % 2}") for k in range(6))
    )
    for n in range(10)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A hundred pictures of ten prompts, and two judges."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judges.py").write_text(JUDGES)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write_prompts(pictures / "prompts.jsonl", PROMPTS)
    random = np.random.default_rng(0)
    for number in range(100):
        image = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        image.save(pictures / f"p{number % 10}-{number // 10}.png")
    return pictures


def lens_rl(*arguments):
    result = CliRunner().invoke(app, ["judge", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_planted_kappa_of_0_6_is_recovered_within_its_interval(folder, tmp_path):
    names = ("python: judges.py:Truth", "python: judges.py:Noisy")
    code, output, errors = lens_rl("compare", *names, "--on", folder, "--probes", 20, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert found["pictures"] == 100 and found["by_kind"]["all"]["verdicts"] == 600
    for kind in ("all", "kind0", "kind1"):
        kappa = found["by_kind"][kind]["kappa"]
        assert kappa["low"] <= 0.6 <= kappa["high"] and kappa["high"] - kappa["low"] < 0.25
    assert found["probed"] == 20 and found["a"]["repeat_flips"]["all"]["value"] == 0.0
    assert json.loads((tmp_path / "comparison" / "comparison.json").read_text()) == found

    code, output, _ = lens_rl("compare", *names, "--on", folder, "--probes", 20)
    assert code == 0 and re.search(r"all +600 +0\.\d\d\d \[", output) and "comparison.html" in output
    assert max(map(len, output.splitlines())) <= 80


def test_the_page_is_whole_and_opens_anywhere(folder, tmp_path):
    code, _, errors = lens_rl("compare", "python: judges.py:Truth", "python: judges.py:Noisy", "--on", folder)
    assert code == 0, errors
    page = (tmp_path / "comparison" / "comparison.html").read_text()
    assert page.rstrip().endswith("</html>") and 'name="viewport"' in page and "prefers-color-scheme: dark" in page
    assert not re.search(r"<script|<link rel=.stylesheet|src=\"http|url\(http", page)
    for text in ("Agreement, by kind", "Yes on other prompts", "Contradictions", "Flips on repeat", "Halo", "truth+"):
        assert text in page
    assert "nan" not in page.lower().replace("nano", "")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    (place / "judges.py").write_text(JUDGES)
    config = load_recipe(
        RlRecipe,
        find_recipe("shapes", RECIPES),
        [*SMALL, f"model={model(place / 'model')}", "steps=2", "evaluation.every=2", "prompts.validation=8",
         "prompts.test=4", "held_out_judge.share=0.5", f"held_out_judge.backend='python: {place / 'judges.py'}:Truth'"],
    )  # fmt: skip
    run_job(config, place / "run")
    return place


def test_a_run_is_judged_on_its_validation_made_again_and_its_verdicts_are_not_asked_again(run, tmp_path, monkeypatch):
    """The pictures are equal to the pixel, so the run's own store answers for its judge: nothing is left to ask."""
    from lens_rl.judges import shapes

    asked = []
    before = shapes.ShapesBackend.answer

    async def counted(self, picture, questions):
        asked.append(questions)
        return await before(self, picture, questions)

    monkeypatch.setattr(shapes.ShapesBackend, "answer", counted)
    names = (f"{run / 'run'}", f"{run / 'run'}:held_out_judge")
    code, output, errors = lens_rl("compare", *names, "--on", run / "run", "--probes", 0, "--out", tmp_path, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert found["pictures"] == 8 and found["a"]["judge_id"].startswith("shapes-") and asked == []
    assert found["b"]["judge_id"].startswith("truth+") and found["probed"] == 0


def test_a_store_is_compared_without_asking_or_drawing_anything(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = run / "run" / "verdicts-rank0.sqlite"
    code, output, errors = lens_rl("compare", "shapes", "truth", "--on", store, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert found["pictures"] >= 2 * 8 and found["probed"] == 0
    code, _, errors = lens_rl("compare", "shapes", "gpt", "--on", store)
    assert code == 1 and "holds no verdict of it, 'gpt'; it holds: shapes-2+" in errors.replace("\n", " ")


@pytest.mark.parametrize(
    "name, message",
    [
        ("shapez", r"there is no judge 'shapez' \(did you mean 'shapes'\?\): give a recipe's name"),
        ("backend=shapez", r"unknown backend 'shapez' \(did you mean 'shapes'"),
        ("modle=x", r"unknown field 'modle' \(did you mean 'model'"),
        ("shapes:held_out_judge", "shapes has no held_out_judge"),
        ("nowhere.yaml", "judge file nowhere.yaml does not exist"),
        ("python: nowhere.py:Judge", "there is no file nowhere.py"),
    ],
)
def test_a_judge_that_is_not_there_is_said_with_what_would_do(folder, name, message):
    code, _, errors = lens_rl("compare", "python: judges.py:Truth", name, "--on", folder)
    assert code == 1 and re.search(message, errors), errors
    assert not (folder.parent / "comparison" / "verdicts.sqlite").exists(), "and before anything is asked"


def test_the_forms_in_which_a_judge_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("backend: shapes\nconcurrency: 3\n")
    assert named_judge(str(tmp_path / "mine.yaml")) == Judge(backend="shapes", concurrency=3)
    assert named_judge("backend=openai_chat,base_url=http://127.0.0.1:1/v1,model=m,concurrency=2") == Judge(
        backend="openai_chat", base_url="http://127.0.0.1:1/v1", model="m", concurrency=2
    )
    assert named_judge("shapes") == load_recipe(RlRecipe, find_recipe("shapes", RECIPES)).judge
    assert named_judge(str(RECIPES / "lens.yaml")) == named_judge("lens")
    assert named_judge("python: a.py:B") == Judge(backend="python: a.py:B")


def test_pictures_find_their_prompts(folder):
    rubric = Rubric.load("lens")
    found = pictures_in(folder, None, rubric)
    assert [picture.prompt.id for picture in found[:11]] == ["p0"] * 10 + ["p1"] and len(found) == 100
    assert found[0].load().shape == (4, 4, 3)
    Image.new("RGB", (4, 4)).save(folder / "stranger.png")
    with pytest.raises(RecipeProblem, match=r"no prompt is known of 1 of 101 pictures, for example stranger\.png"):
        pictures_in(folder, None, rubric)
    with pytest.raises(RecipeProblem, match="there are no pictures"):
        pictures_in(folder.parent, None, rubric)


def test_generated_pictures_carry_their_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["generate", "one red circle", "--size", "16x16", "--steps", "1", "--out", "made"])
    assert made.exit_code == 0, made.stderr
    (picture,) = pictures_in(Path("made"), None, Rubric.load("lens"))
    assert picture.prompt.text == "one red circle" and len(picture.prompt.criteria) == Rubric.load("lens").size


def test_probed_pictures_are_spread():
    assert spread(100, 4) == [0, 33, 66, 99] and spread(3, 10) == [0, 1, 2] and spread(5, 0) == []


def test_try_shows_the_messages_that_the_server_got(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    Image.new("RGB", (40, 60), "red").save(tmp_path / "red.png")
    with serving(lambda *_: completion("1", {"1": 0.6, "0": 0.2})) as served:
        judge = f"backend=openai_chat,base_url={served.url},model=some-model"
        arguments = ("try", tmp_path / "red.png", "--judge", judge, "--prompt", "a red wall",
                     "--criterion", "The wall is red.")  # fmt: skip
        code, output, errors = lens_rl(*arguments)
        assert code == 0, errors
        (sent,) = served.requests
        _, as_json, _ = lens_rl(*arguments, "--json")
    system, user = sent["messages"]
    for line in (*system["content"].splitlines(), *user["content"][1]["text"].splitlines()):
        assert line.strip() in output, line
    assert "data:image/jpeg;base64," in output and user["content"][0]["image_url"]["url"] not in output
    assert "0.750" in output and "0.800" in output and "some-model" in output
    found = json.loads(as_json)
    assert found["requests"] == [sent] and found["verdicts"][0]["value"] == 1


def test_try_says_what_is_wrong(tmp_path):
    (tmp_path / "no.png").write_text("text")
    Image.new("RGB", (8, 8)).save(tmp_path / "yes.png")
    common = ("--judge", "shapes", "--prompt", "x", "--criterion", "It is red.")
    for file, extra, message in (
        ("no.png", (), "cannot be read as a picture"),
        ("gone.png", (), "cannot be read as a picture"),
        ("yes.png", (), "it has no `check`"),
        ("yes.png", ("--check", "red"), "write a mapping"),
        ("yes.png", ("--check", "{kind: structure}", "--check", "{kind: structure}"), "as many as --criterion"),
    ):
        code, _, errors = lens_rl("try", tmp_path / file, *common, *extra)
        assert code == 1 and message in errors, errors
    code, output, _ = lens_rl("try", tmp_path / "yes.png", *common, "--check", "{kind: present, of: red circle}")
    assert code == 0 and "Nothing was sent" in output
