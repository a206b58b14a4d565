"""`lens-rl generate`: pictures named by what made them, remade from their metadata, never overwritten."""

import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from base_model.pipeline import LensPipeline
from lens_core.recipes import RecipeProblem
from lens_core.records import Prompt
from lens_rl.models import open_generator
from lens_rl.sheet import draw_sheet
from pipelines.cli import app
from pipelines.generate import How, generate, parameters_of, read_prompts
from tests.test_docs import blocks
from tests.test_lens import build

QUICK = How(sizes=("16x24",), steps=2, guidance=3.0, count=2)
PROMPTS = [Prompt("0", "a red circle"), Prompt("1", "blue square, a red circle")]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "lens"
    build().save(folder)
    return str(folder)


def run(*words: str, fails: bool = False) -> str:
    result = CliRunner().invoke(app, ["generate", *words])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


def pixels(file: Path | str) -> np.ndarray:
    return np.asarray(Image.open(file))


def test_a_picture_is_remade_from_its_metadata_to_the_bit(model, tmp_path):
    texts = ("a red circle", "a red blue circle, a blue square")
    words = ("--size", "16x24", "--steps", "2", "--guidance", "3", "--seed", "7", "--negative", "blue square")
    run(*texts, "--model", model, "--out", str(tmp_path / "first"), *words, "--count", "2", "--batch", "1")
    files = sorted((tmp_path / "first").glob("*.png"))
    assert len(files) == 4
    known = parameters_of(files[0])
    again = [
        f"--{name}={known[name]}" for name in ("size", "steps", "guidance", "seed", "negative", "sampler", "model")
    ]
    run(known["prompt"], *again, "--out", str(tmp_path / "again"))
    remade = tmp_path / "again" / files[0].name
    assert np.array_equal(pixels(remade), pixels(files[0])) and pixels(remade).shape == (16, 24, 3)
    assert parameters_of(remade) == known


def test_a_picture_does_not_depend_on_its_batch(model, tmp_path):
    """But for rounding: sums over a padded batch are taken in another order."""
    alone = generate(PROMPTS, model, tmp_path / "alone", QUICK)
    together = generate(PROMPTS[::-1], model, tmp_path / "together", How(**{**as_dict(QUICK), "batch": 8}))
    assert sorted(p.file.name for p in alone) == sorted(p.file.name for p in together)
    for picture in alone:
        other = pixels(tmp_path / "together" / picture.file.name).astype(int)
        assert np.abs(pixels(picture.file) - other).max() <= 1


def as_dict(how: How) -> dict:
    return {name: getattr(how, name) for name in How.__slots__}


def test_it_is_the_picture_of_the_pipeline(model, tmp_path):
    (picture,) = generate(PROMPTS[:1], model, tmp_path, How(**{**as_dict(QUICK), "count": 1, "seed": 5}))
    pipe = LensPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    seeded = torch.Generator().manual_seed(5)
    image = pipe("a red circle", None, 16, 24, 2, 3.0, generator=seeded).images[0]
    assert np.abs(pixels(picture.file).astype(int) - np.asarray(image)).max() <= 1


def test_what_is_there_is_kept_and_what_differs_has_another_name(model, tmp_path):
    first = generate(PROMPTS, model, tmp_path, QUICK)
    first[0].file.unlink()
    times = {picture.file: picture.file.stat().st_mtime_ns for picture in first[1:]}
    assert [picture.file for picture in generate(PROMPTS, model, tmp_path, QUICK)] == [p.file for p in first]
    assert first[0].file.exists()
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())

    names = {picture.file for picture in first}
    for change in ({"seed": 9}, {"steps": 3}, {"guidance": 2.0}, {"negative": "blue"}, {"sizes": ("16x16",)}):
        other = {p.file for p in generate(PROMPTS, model, tmp_path, How(**{**as_dict(QUICK), **change}))}
        assert len(other) == 4 and not other & names, change
    assert len(list(tmp_path.iterdir())) == 6 * 4

    retrained = open_generator(model)
    with torch.no_grad():
        retrained.trainable.proj_out.bias += 0.1
    retrained.save(tmp_path.with_name("retrained"))
    assert not {p.file.name for p in generate(PROMPTS, str(tmp_path.with_name("retrained")), tmp_path, QUICK)} & {
        name.name for name in names
    }


def test_every_prompt_in_every_size_from_every_seed(model, tmp_path):
    out = run(
        *("a red circle", "blue", "--model", model, "--out", str(tmp_path), "--steps", "1", "--json", "--sheet"),
        *("--size", "16x16", "--size", "8x24", "--count", "2", "--seed", "3"),
    )
    made = json.loads(out[out.index("[\n") : out.rindex("]") + 1])
    expected = [(p, s, n) for p in ("a red circle", "blue") for s in ("16x16", "8x24") for n in (3, 4)]
    assert [(item["prompt"], item["size"], item["seed"]) for item in made] == expected
    for item in made:
        height, width = map(int, item["size"].split("x"))
        assert pixels(item["file"]).shape == (height, width, 3)
    assert (tmp_path / "contact-sheet.png").exists()


def test_prompts_come_from_arguments_files_and_standard_input(tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("a red circle\n\nblue\n")
    (tmp_path / "p.jsonl").write_text('{"text": "two lines\\nof text"}\n')
    monkeypatch.setattr("sys.stdin", io.StringIO("first\n\n second \n"))

    def texts(*arguments):
        return [prompt.text for prompt in read_prompts(*arguments)]

    assert texts(["a"], tmp_path / "p.txt") == ["a", "a red circle", "blue"]
    assert texts([], tmp_path / "p.jsonl") == ["two lines\nof text"]
    assert texts(["a", "-"]) == ["a", "first", "second"]
    with pytest.raises(RecipeProblem, match="no prompts: give texts, --prompts FILE, or -"):
        texts([])
    with pytest.raises(RecipeProblem, match="prompt 2 is empty"):
        texts(["a", " "])


@pytest.mark.parametrize(
    "words, said",
    [
        (
            "a --size 1000x1001",
            "--size 1000x1001: both sides must be multiples of 8; nearest valid: 1000x1000, 1000x1008",
        ),
        ("a --size 64", "--size 64: write it as HxW"),
        ("a --model nowhere", "there is no folder nowhere"),
        ("a --out MODEL/model_index.json", "cannot write there"),
        ("a --sampler eule", "unknown sampler 'eule' (did you mean 'euler'?)"),
        ("--prompts none.txt", "none.txt cannot be read"),
    ],
)
def test_errors_name_the_option_and_the_fix(model, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    given = shlex.split(words.replace("MODEL", model))
    assert said in run(*given, *(() if "--model" in given else ("--model", model)), fails=True)
    assert not list(tmp_path.rglob("*.png"))


def test_a_name_is_safe_for_any_text(model, tmp_path):
    strange = ["../../etc/passwd", "数字 ٣ عربي", "x" * 500, "\N{ROCKET}", "two lines\nof text"]
    pictures = generate([Prompt("0", text) for text in strange], model, tmp_path, How(sizes=("8x8",), steps=1))
    assert {picture.file.parent for picture in pictures} == {tmp_path}
    assert [parameters_of(picture.file)["prompt"] for picture in pictures] == strange


def test_a_sheet_holds_every_picture_where_it_belongs():
    red, blue = (np.full((10, 20, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(draw_sheet([("first", [[red, blue], [blue]]), ("second", [[blue], [red]])], cell=40))

    def area(color):
        return int((sheet == color).all(-1).sum())

    assert area((255, 0, 0)) == 2 * 20 * 40 and area((0, 0, 255)) == 3 * 20 * 40
    rows = [int((sheet[half] == (255, 0, 0)).all(-1).sum()) for half in (slice(0, 60), slice(60, None))]
    assert rows == [800, 800]


@pytest.mark.parametrize("line", [line for block in blocks("docs/generate.md", "bash") for line in block.splitlines()])
def test_commands_of_the_page(model, tmp_path, monkeypatch, line):
    """With a small model of random weights in the place of the embedded one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"text": "a red circle"}\n')
    words = shlex.split(line, comments=True)
    assert words[:2] == [".venv/bin/lens-rl", "generate"]
    run(*words[2:], "--model", model)
    assert list((tmp_path / "pictures").glob("*.png"))


def test_the_python_of_the_page(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Lens").symlink_to(model)
    for block in blocks("docs/generate.md", "python"):
        exec(compile(block, "docs/generate.md", "exec"), {})
    assert Image.open("circle.png").size == (32, 32)
