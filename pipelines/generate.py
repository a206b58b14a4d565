"""`lens-rl generate`: texts to PNG files, each with what made it in its metadata, and a hash of that in its name.

So a file that is there already is the picture that is wanted: it is kept, and a command that was stopped goes on
where it was. Pictures made otherwise have other names; nothing is overwritten.
"""

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo
from torch import nn

from base_model import buckets
from base_model.generator import Generator
from base_model.lens import LensGenerator
from base_model.samplers import SAMPLERS
from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem, nearest
from lens_core.records import Prompt, Size
from lens_core.runs import whole_file
from lens_rl.models import open_generator
from lens_rl.rollout import FeatureBank, Order, roll_out
from lens_rl.sheet import draw_sheet
from taxonomy.prompt_set import load_prompts

STDIN = "-"
TAG = "lens-rl:"
TEXTS_KEPT = 256
"""Prompts whose features stay in memory, for pictures of theirs in later batches."""
SHEET_ROWS, SHEET_CELL = 100, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How pictures are made. `sizes` are written HxW; sizes and guidance not given are the model's usual ones."""

    sizes: tuple[str, ...] = ()
    negative: str = ""
    steps: int = 20
    guidance: float | None = None
    sampler: str = "euler"
    seed: int = 0
    """Of a prompt's first picture; those of the others count on from it."""
    count: int = 1
    batch: int = 4
    offload: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, what is to be drawn, and all that decides how it looks."""

    file: Path
    order: Order
    parameters: dict[str, Any]


def read_prompts(texts: Sequence[str], file: Path | None = None) -> list[Prompt]:
    """The prompts of a command: its own texts, then those of a prompt file; `-`, as either, reads standard input.

    Raises RecipeProblem where there are none, or one is empty.
    """
    lines = [text for text in texts if text != STDIN]
    from_file: list[Prompt] = []
    if file == Path(STDIN) or STDIN in texts:
        lines += [line.strip() for line in sys.stdin if line.strip()]
    elif file is not None:
        from_file = load_prompts(file)
    prompts = [*(Prompt(id=str(number), text=text) for number, text in enumerate(lines)), *from_file]
    if not prompts:
        raise RecipeProblem("no prompts: give texts, --prompts FILE, or - to read a prompt a line from standard input")
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.text.strip():
            raise RecipeProblem(f"prompt {number} is empty: say what to draw")
    return prompts


def generate(prompts: Sequence[Prompt], model: str, out: Path, how: How) -> list[Picture]:
    """A picture of each prompt in each size from each seed, in that order, as PNG files in `out`.

    A picture does not depend on what else is made with it, but for the rounding of floats. Raises RecipeProblem
    for what cannot be drawn, and RunProblem where the disk says no.
    """
    if how.sampler not in SAMPLERS:
        raise RecipeProblem(f"--sampler: unknown sampler {how.sampler!r}{nearest(how.sampler, SAMPLERS)}")
    sizes = [buckets.parse_size(text) for text in how.sizes]
    _check_folder(out)
    generator = _open(model, how.offload)
    for size in sizes:
        _check_size(size, generator.size_multiple)
    guidance = _usual_guidance(generator) if how.guidance is None else how.guidance
    how = replace(how, guidance=guidance)

    pictures = _wanted(prompts, sizes or [buckets.usual_size(generator.size_multiple)], model, out, how, generator)
    missing = [picture for picture in pictures if not picture.file.exists()]
    with ProgressDisplay("pictures", len(missing)) as bar:
        if found := len(pictures) - len(missing):
            bar.say(f"{found} of {len(pictures)} pictures are there already")
        for done, file in enumerate(_drawn(missing, generator, how, guidance), start=1):
            bar.update(done, file.name)
    return pictures


def parameters_of(file: Path) -> dict[str, str]:
    """What a picture's metadata say about how it was made."""
    with Image.open(file) as image:
        texts = image.text if isinstance(image, PngImageFile) else {}
    return {key.removeprefix(TAG): str(value) for key, value in texts.items() if key.startswith(TAG)}


def write_sheet(pictures: Sequence[Picture], out: Path) -> Path:
    """`contact-sheet.png` in `out`: a row a prompt, for the first hundred."""
    rows: dict[int, list[np.ndarray]] = {}
    text_of = {picture.order.group: picture.order.prompt.text for picture in pictures}
    for picture in pictures:
        if picture.order.group in rows or len(rows) < SHEET_ROWS:
            rows.setdefault(picture.order.group, []).append(np.asarray(Image.open(picture.file)))
    sheet = draw_sheet([(text_of[group], [images]) for group, images in rows.items()], cell=SHEET_CELL)
    with whole_file(out / "contact-sheet.png") as draft:
        sheet.save(draft, format="PNG", optimize=True)
    return out / "contact-sheet.png"


def _wanted(
    prompts: Sequence[Prompt], sizes: Sequence[Size], model: str, out: Path, how: How, generator: Generator
) -> list[Picture]:
    """The pictures that were asked for, each once."""
    how_made = {"negative": how.negative, "steps": how.steps, "guidance": how.guidance, "sampler": how.sampler}
    weights = generator.identity()[:16]
    pictures: dict[Path, Picture] = {}
    for group, prompt in enumerate(prompts):
        for size in sizes:
            for index in range(how.count):
                order = Order(prompt, group, index, size, how.seed + index)
                parameters = {"prompt": prompt.text, "seed": order.seed, "size": _text(size), **how_made}
                parameters |= {"weights": weights}
                file = out / _file_name(parameters)
                pictures.setdefault(file, Picture(file, order, {**parameters, "model": model}))
    return list(pictures.values())


def _file_name(parameters: dict[str, Any]) -> str:
    """The start of the prompt, the seed, and a hash of all that decides the picture."""
    words = re.sub(r"\W+", "-", parameters["prompt"].lower())[:40].strip("-")
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
    return f"{words}-seed{parameters['seed']}-{key}.png"


def _drawn(pictures: Sequence[Picture], generator: Generator, how: How, guidance: float) -> Iterable[Path]:
    """Draws the pictures; gives each file's name as soon as it is there."""
    picture_of = {id(picture.order): picture for picture in pictures}
    made = roll_out(
        generator,
        FeatureBank(generator, capacity=TEXTS_KEPT),
        [picture.order for picture in pictures],
        num_steps=how.steps,
        sampler=how.sampler,
        batch_size=how.batch,
        guidance=guidance,
        negative=how.negative,
    )
    for order, sample in made:
        picture = picture_of[id(order)]
        info = PngInfo()
        for key, value in picture.parameters.items():
            info.add_itxt(f"{TAG}{key}", str(value))
        with whole_file(picture.file) as draft:
            Image.fromarray(sample.image).save(draft, format="PNG", pnginfo=info)
        yield picture.file


def _open(model: str, offload: bool) -> Generator:
    """On the GPU in bf16 where there is one, else on the CPU in fp32."""
    if not torch.cuda.is_available():
        return open_generator(model, "cpu", torch.float32)
    if not offload:
        return open_generator(model, "cuda", torch.bfloat16)
    generator = open_generator(model, "cpu", torch.bfloat16)
    if not isinstance(generator, LensGenerator):
        raise RecipeProblem(f"--offload: {model} is a class of your own; only Lens can leave its text encoder behind")
    for part in (generator.transformer, generator.codec.vae):
        cast(nn.Module, part).to("cuda")
    return generator


def _usual_guidance(generator: Generator) -> float:
    """That of Lens; the small models with small tokens are trained and judged without."""
    return 5.0 if generator.size_multiple >= 16 else 1.0


def _check_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise RecipeProblem(f"--out {out}: cannot write there: {error.strerror}") from error


def _check_size(size: Size, multiple: int) -> None:
    nearest_valid = buckets.nearest_sizes(size, multiple)
    if nearest_valid != [size]:
        raise RecipeProblem(
            f"--size {_text(size)}: both sides must be multiples of {multiple}; nearest valid: "
            + ", ".join(map(_text, nearest_valid))
        )


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
