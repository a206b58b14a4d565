"""The commands of README and docs are real: each is parsed, and what starts no long work is run.

RL commands run as `--dry-run`, which checks recipe, prompts, rubric, judge and model; a command of
minutes is parsed only, and has whole runs of its own in other tests.
"""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from peft import LoraConfig
from PIL import Image
from typer.testing import CliRunner

from base_model import lora
from base_model.checkpoint import stored_transformer
from base_model.lens import LORA_TARGETS
from base_model.lora_files import write_for_comfyui
from base_model.weights import save_in_one_file
from lens_core.records import Criterion, Prompt
from lens_rl.judges.store import VerdictStore
from lens_rl.models import EMBEDDED
from lens_rl.shapes.render import render
from lens_rl.shapes.scene import Scene, Thing
from pipelines.cli import app
from pipelines.data.captioning.store import CaptionStore
from pipelines.rubric import new
from taxonomy.prompt_set import write_prompts
from tests.chat_server import completion, serving
from tests.e2e.runs import finished_run
from tests.test_caption_rules import DENSE
from tests.test_pack_captioned import write_set

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
VERBS = {"rl.sh": "rl", "pretrain.sh": "pretrain"}
PARSED_ONLY = {("pretrain",), ("rubric", "write")}
"""Verbs whose runs take minutes, or a language model."""
NOT_OURS = ("pip ", "export ", "cd ", "git ", "python -m benchmarks.")


def blocks(page: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
    return [text for tag, text in fenced if tag == language]


def commands(page: str) -> list[list[str]]:
    """Every command of a page as the words after `lens-rl`."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words or line.startswith(NOT_OURS):
                continue
            if words[0] == "bash":
                script = (ROOT / words[1]).resolve()
                assert script.is_file(), f"{page}: {words[1]} does not exist"
                if script.name in VERBS:
                    found.append([VERBS[script.name], *words[2:]])
            elif words[0] in ("lens-rl", ".venv/bin/lens-rl"):
                found.append(words[1:])
            else:
                raise AssertionError(f"{page}: what is {line!r}?")
    return found


COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


def write_files(folder: Path) -> None:
    """The files that the pages tell users to write, made from the pages themselves."""
    (folder / "my-rubric.yaml").write_text(blocks("docs/write-a-rubric.md", "yaml")[0])
    (folder / "my_judge.py").write_text(blocks("docs/swap-the-judge.md", "python")[0])
    (line,) = blocks("docs/bring-prompts.md", "json")[0].splitlines()
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text(line.replace("red circle", f"red circle of the {split} kind") + "\n")
    many = [line.replace("red circle", f"red circle of kind {number}") for number in range(60)]
    (folder / "prompts.jsonl").write_text("\n".join(many) + "\n")


def write_rubric(folder: Path) -> None:
    """What the page about rubrics has made by its first commands: a rubric, and a picture of the prompt it gives."""
    new(folder / "my")
    (folder / "prompts.jsonl").write_text(blocks("docs/write-a-rubric.md", "json")[0])
    (folder / "pictures").mkdir()
    things = tuple(Thing("circle", "red", 10.0, x, 4.0) for x in (5.0, 15.0))
    Image.fromarray(render(Scene(things, "white", (20, 20)))).save(folder / "pictures" / "one.png")


def write_pictures(folder: Path) -> None:
    """The pictures that the pages about judges ask about."""
    Image.new("RGB", (64, 64), "black").save(folder / "cat.png")
    (folder / "pictures").mkdir()
    check = {"kind": "present", "of": "red circle"}
    criterion = Criterion("c", "There is a red circle.", "shape", check)
    write_prompts(folder / "pictures" / "prompts.jsonl", [Prompt("p", "one red circle", criteria=(criterion,))])
    for number, colour in enumerate(("red", "white", "black")):
        Image.new("RGB", (20, 20), colour).save(folder / "pictures" / f"p-{number}.png")


def write_photos(folder: Path) -> None:
    """A folder of images to clean; noise is sharp and holds much."""
    write_pictures_of_noise(folder / "photos")


def write_pictures_of_noise(folder: Path) -> None:
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (400, 400, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def write_captioned(folder: Path) -> None:
    """What the page about captions begins with: pictures, and two sets; the pages before it tell how they are made."""
    write_pictures_of_noise(folder / "cleaned")
    for name in ("captions", "text"):
        write_set(folder / name, 3, size=(600, 600), start=3 * (name == "text"))
    CaptionStore(folder / "captions" / "captions.sqlite").close()
    (folder / "drawings.j2").write_text(blocks("docs/caption-and-pack.md", "jinja")[0])


def write_models(folder: Path) -> None:
    """The models that the pages name: the embedded one under the names of the large ones, and LoRAs for it."""
    (folder / "checkpoints").mkdir()
    for name in ("Lens", "Lens-Base"):
        (folder / "checkpoints" / name).symlink_to(EMBEDDED["shapes"])
    transformer = stored_transformer(EMBEDDED["shapes"]).load(None)
    save_in_one_file(transformer, folder / "lens-bf16.safetensors")
    lora.inject(transformer, LoraConfig(r=2, target_modules=LORA_TARGETS), "style")
    for name in ("style", "light"):
        write_for_comfyui(lora.adapter(transformer, "style"), folder).rename(folder / f"{name}.safetensors")


def write_store(folder: Path) -> Path:
    """The verdict store of a run that has just begun."""
    path = folder / "verdicts-rank0.sqlite"
    VerdictStore(path).close()
    return path


def parse(words: list[str], depth: int) -> None:
    """Check the options of a command, named by its first `depth` words, and no more."""
    command: Any = typer.main.get_command(app)
    for name in words[:depth]:
        command = command.commands[name]
    command.make_context(words[depth - 1], words[depth:])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.mark.parametrize("page, words", COMMANDS, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in COMMANDS])
def test_commands_of_the_documents(page, words, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    write_files(tmp_path)
    if page == "docs/load-and-export.md":
        write_models(tmp_path)
    if page == "docs/trust-the-judge.md":
        write_pictures(tmp_path)
    if page == "docs/clean-a-folder.md":
        write_photos(tmp_path)
    if page == "docs/write-a-rubric.md" and words[:2] != ["rubric", "new"]:
        write_rubric(tmp_path)
    if page == "docs/caption-and-pack.md":
        write_captioned(tmp_path)
    if page == "docs/render-text.md":
        write_photos(tmp_path)
        (tmp_path / "lines.txt").write_text("Open daily\n")
    verb, *arguments = ["shapes" if word == "RECIPE" else word for word in words]
    if verb == "judge" and any("model=" in word or word == "lens" for word in arguments):
        parse(words, 2)  # It would ask a language model.
        return
    if words[:2] == ["data", "caption"]:
        with serving(lambda *_: completion(DENSE)) as server:
            words = [*words, "--out", "asked", "--model", f"base_url={server.url}"]
            result = CliRunner().invoke(app, words)
        assert result.exit_code == 0 and "3 of 3 pictures captioned" in result.output, result.output
        return
    if words[:2] == ["data", "clean"] and not {"ray", "cleaning.yaml"}.isdisjoint(arguments):
        parse(words, 2)  # It would start a cluster, or load large models.
        return
    if parsed_only := next((verbs for verbs in PARSED_ONLY if words[: len(verbs)] == list(verbs)), None):
        parse(words, len(parsed_only))
        return
    if verb == "report":
        for name in {word for word in arguments if word.startswith("runs/")}:
            shutil.copytree(request.getfixturevalue("finished"), tmp_path / name)
        assert CliRunner().invoke(app, [verb, *arguments]).exit_code == 0
        return
    run = {"export": "shapes + style.safetensors", "judge": "pictures"}.get(verb, "shapes")
    if arguments[:1] == ["report"] and verb == "judge":
        arguments = ["report", str(write_store(tmp_path))]
    arguments = [re.sub(r"^(model=|)runs/.*", rf"\1{run}", word) for word in arguments]
    if verb == "prompts" and arguments[0] == "build" and "--count" not in arguments:
        arguments += ["--count", "300"]  # The whole set has a test of its own.
    result = CliRunner().invoke(app, [verb, *arguments, *(["--dry-run"] if verb == "rl" else [])])
    assert result.exit_code == 0, result.output


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


def test_the_readme_names_every_file_of_the_house():
    """The tree names each module, template and recipe of the packages: with its folder's line, or on its own."""
    (tree,) = [block for block in blocks("README.md", "") if block.startswith("lens_core/")]
    packages = ("lens_core", "taxonomy", "rubrics", "base_model", "lens_rl", "pipelines", "benchmarks")
    for package in packages:
        for file in (ROOT / package).glob("*"):
            if file.name.startswith(("_", ".")) or (file.is_dir() and not any(file.glob("*"))):
                continue
            assert file.name in tree, f"README.md: the tree lacks {package}/{file.name}"
