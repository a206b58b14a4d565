"""What a judge verb is about: which judge, and which pictures with which prompts."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, UnidentifiedImageError

from lens_core.doors import PREFIX
from lens_core.recipes import RecipeProblem, find_recipe, load_recipe, nearest, read_recipe
from lens_core.records import Prompt
from lens_rl.judges import BACKENDS
from lens_rl.judges.examination import Picture
from lens_rl.recipe import RECIPES, Judge, RlRecipe
from rubrics.rubric import Rubric
from taxonomy.prompt_set import load_prompts

SECTIONS = ("judge", "held_out_judge")
IMAGES = (".png", ".jpg", ".jpeg", ".webp")
PROMPTS = ("prompts.jsonl", "prompts.txt")
PROMPT_TAG = "lens-rl:prompt"
FORMS = (
    "a recipe's name or file, a run folder (each also with `:held_out_judge` behind it), a YAML file with the fields "
    "of a judge, fields as in `backend=openai_chat,model=NAME`, or `python: path/to/file.py:Class`"
)


def named_judge(text: str) -> Judge:
    """The judge section that a command names; see `FORMS`. Raises RecipeProblem with what would do."""
    if text.startswith(PREFIX):
        return Judge(backend=text)
    if "=" in text:
        return read_recipe(Judge, _as_yaml(text), f"judge {text!r}")
    name, _, section = text.rpartition(":")
    if section not in SECTIONS:
        name, section = text, SECTIONS[0]
    if (config := Path(name) / "config.yaml").is_file():
        return _section(load_recipe(RlRecipe, config), section, name)
    if name.endswith((".yaml", ".yml")):
        return _of_file(find_recipe(name, RECIPES, what="judge"), section)
    recipes = [file.stem for file in RECIPES.glob("*.yaml")]
    if name in recipes:
        return _section(load_recipe(RlRecipe, find_recipe(name, RECIPES)), section, name)
    if name in BACKENDS:
        return Judge(backend=name)
    raise RecipeProblem(f"there is no judge {text!r}{nearest(name, [*recipes, *BACKENDS])}: give {FORMS}")


def pictures_in(folder: Path, prompts: Path | None, rubric: Rubric) -> list[Picture]:
    """The pictures of a folder with their prompts, in order of file names.

    A picture belongs to the prompt whose id its file name is, or begins with before a `-`; pictures of `lens-rl
    generate` carry their prompt in them. Criteria are the prompt file's, else the rubric's. Raises RecipeProblem for
    pictures that no prompt is known of.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGES)
    files = [file for file in files if file.stem != "contact-sheet"]
    if not files:
        raise RecipeProblem(f"--on {folder}: there are no pictures ({', '.join(IMAGES)}) in this folder")
    known = _prompts_of(folder, prompts)
    by_id, by_text = {prompt.id: prompt for prompt in known}, {prompt.text: prompt for prompt in known}
    found, unknown = [], []
    for file in files:
        prompt = _by_name(file.stem, by_id)
        if prompt is None and (text := _text_inside(file)):
            prompt = by_text.get(text, Prompt(id=file.stem, text=text))
        if prompt is None:
            unknown.append(file.name)
            continue
        found.append(Picture(file.name, with_criteria(prompt, rubric), partial(read_image, file)))
    if unknown:
        raise RecipeProblem(
            f"--on {folder}: no prompt is known of {len(unknown)} of {len(files)} pictures, for example {unknown[0]}: "
            "give --prompts FILE, or put a prompts.jsonl beside them, with ids that the file names begin with"
        )
    return found


def with_criteria(prompt: Prompt, rubric: Rubric) -> Prompt:
    """The prompt with its own criteria, or else with those that the rubric gives to every prompt."""
    if prompt.criteria:
        return prompt
    return Prompt(prompt.id, prompt.text, prompt.category, prompt.dimensions, rubric.criteria(prompt.text, {}))


def read_image(file: Path) -> np.ndarray:
    """uint8 RGB (H, W, 3). Raises RecipeProblem for what is no picture."""
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise RecipeProblem(f"{file} cannot be read as a picture: {error}") from error


def spread(count: int, wanted: int) -> Sequence[int]:
    """`wanted` of the numbers below `count`, evenly spread."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(wanted, count))}) if wanted else []


def _as_yaml(text: str) -> str:
    """`a=1,b=2` as the YAML mapping of the same fields."""
    fields = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise RecipeProblem(f"judge {text!r}: write fields as name=value, with commas between them")
        fields[name.strip()] = yaml.safe_load(value)
    return yaml.safe_dump(fields)


def _of_file(path: Path, section: str) -> Judge:
    """The judge of a recipe, or of a file that holds nothing but the fields of one."""
    if re.search(r"^judge:", path.read_text(encoding="utf-8"), re.M):
        return _section(load_recipe(RlRecipe, path), section, str(path))
    return load_recipe(Judge, path)


def _section(recipe: RlRecipe, section: str, where: str) -> Judge:
    found: Any = getattr(recipe, section)
    if found is None:
        raise RecipeProblem(f"{where} has no {section}")
    return found


def _prompts_of(folder: Path, prompts: Path | None) -> list[Prompt]:
    if prompts is not None:
        return load_prompts(prompts)
    beside = next((folder / name for name in PROMPTS if (folder / name).is_file()), None)
    return load_prompts(beside) if beside else []


def _by_name(stem: str, by_id: dict[str, Prompt]) -> Prompt | None:
    """The prompt of the longest id that is the name, or its start before a `-`."""
    parts = stem.split("-")
    names = ("-".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((by_id[name] for name in names if name in by_id), None)


def _text_inside(file: Path) -> str | None:
    """The prompt that `lens-rl generate` wrote into a picture."""
    try:
        with Image.open(file) as image:
            text = getattr(image, "text", {}).get(PROMPT_TAG) if file.suffix.lower() == ".png" else None
    except (UnidentifiedImageError, OSError):
        return None
    return None if text is None else str(text)
