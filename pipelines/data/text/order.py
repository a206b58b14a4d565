"""What pictures of text to make, and what that comes to on this machine: scripts, the fonts that have them, photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import PIL
import yaml

from base_model.buckets import TRAINING_BUCKETS
from lens_core.recipes import RecipeProblem
from lens_core.records import Size
from lens_core.seeds import seed_of
from pipelines.data.captioned import sha256
from pipelines.data.text.backgrounds import draw_background
from pipelines.data.text.drawing import Drawn, draw_text
from pipelines.data.text.fonts import Face, can_shape, covering, find_faces
from pipelines.data.text.layouts import LAYOUTS
from pipelines.data.text.scripts import Vocabulary, own_vocabularies, script_named, shipped

LATIN_SHARE = 0.5
"""Of the pictures, where no scripts are named; the other scripts share the rest."""
SIZES = TRAINING_BUCKETS[1024]
PHOTOS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Order:
    """What pictures to make."""

    out: Path
    count: int
    seed: int = 0
    scripts: tuple[str, ...] = ()
    """Names, each as often as the others; none: all that there are fonts for, half of the pictures Latin."""
    sizes: tuple[Size, ...] = SIZES
    """(height, width), as often as each other."""
    fonts: tuple[Path, ...] = ()
    backgrounds: Path | None = None
    texts: Path | None = None
    """Lines to write in place of the shipped vocabulary."""
    check: bool = False
    """Read every picture, and leave out those in which not all of the text is read."""
    workers: int = 1


@dataclass(frozen=True)
class Stock:
    """What an order comes to on this machine: everything that a picture is made of."""

    order: Order
    vocabularies: tuple[tuple[Vocabulary, float], ...]
    """With how often each is drawn."""
    faces: Mapping[str, tuple[Face, ...]]
    """By script."""
    photos: tuple[Path, ...]
    missing: Mapping[str, str]
    """Scripts that are not drawn, with the reason."""


def prepare(order: Order) -> Stock:
    """Find the fonts of every script, and the files. Raises RecipeProblem with the field and the fix."""
    found = find_faces(order.fonts)
    faces: dict[str, tuple[Face, ...]] = {}
    missing: dict[str, str] = {}
    wanted = _vocabularies(order)
    for vocabulary in wanted:
        if vocabulary.script.shaped and not can_shape():
            missing[vocabulary.name] = "this Pillow was built without raqm, which its letters need"
        elif chosen := _faces_for(vocabulary, found):
            faces[vocabulary.name] = chosen
        else:
            package = vocabulary.script.package
            missing[vocabulary.name] = f"no font has all of its letters: apt install {package}, or --fonts DIR"
    if missing and (order.scripts or not faces):
        raise RecipeProblem("; ".join(f"--script {name}: {reason}" for name, reason in missing.items()))
    drawn = [vocabulary for vocabulary in wanted if vocabulary.name in faces]
    return Stock(order, tuple(zip(drawn, _shares(order, drawn), strict=True)), faces, _photos(order), missing)


def draw(stock: Stock, number: int) -> tuple[str, Drawn, Random]:
    """The picture of that number: its script, what was drawn, and the stream its caption is drawn from.

    Raises NothingFits.
    """
    order = stock.order
    random = Random(seed_of("text", order.seed, number))
    vocabularies, shares = zip(*stock.vocabularies, strict=True)
    vocabulary = random.choices(vocabularies, shares)[0]
    layout, size = random.choice(list(LAYOUTS.values())), random.choice(order.sizes)
    background = draw_background(random, size, stock.photos)
    drawn = draw_text(random, layout, size, background, vocabulary, stock.faces[vocabulary.name])
    return vocabulary.name, drawn, random


def settings_of(stock: Stock) -> str:
    """All that the pictures depend on, so that a folder is never filled from two orders; `count` may grow."""
    order = stock.order
    files = sorted({face.file for faces in stock.faces.values() for face in faces})
    fonts = sha256("".join(f"{file.name} {sha256(file.read_bytes())}\n" for file in files).encode())
    lines = "\n".join(line for vocabulary, _ in stock.vocabularies for line in vocabulary.lines)
    return yaml.safe_dump(
        {
            "seed": order.seed,
            "scripts": [vocabulary.name for vocabulary, _ in stock.vocabularies],
            "sizes": [f"{height}x{width}" for height, width in order.sizes],
            "fonts": fonts,
            "backgrounds": sha256("\n".join(map(str, stock.photos)).encode()) if stock.photos else None,
            "texts": sha256(lines.encode()) if lines else None,
            "check": order.check,
            "pillow": PIL.__version__,
        },
        sort_keys=False,
    )


def facts_of(drawn: Drawn, script: str) -> dict[str, Any]:
    """What is true of a picture: every text, and where each of its lines lies, corners as (x, y) in pixels."""
    return {
        "source": "rendered text",
        "layout": drawn.layout,
        "script": script,
        "size": [drawn.picture.height, drawn.picture.width],
        "blur": round(drawn.blur, 2),
        "texts": [
            {
                "text": block.text,
                "role": block.role,
                "font": block.face.name,
                "letters": block.pixels,
                "colour": block.colour,
                "lines": [{"text": line.text, "corners": line.polygon} for line in block.lines],
            }
            for block in drawn.blocks
        ],
    }


def _vocabularies(order: Order) -> list[Vocabulary]:
    if order.texts is None:
        return [Vocabulary(name, script_named(name)) for name in order.scripts or shipped()]
    if order.scripts:
        raise RecipeProblem("--script: the lines of --texts say their scripts themselves; give one of the two")
    try:
        return own_vocabularies(order.texts.read_text(encoding="utf-8").splitlines(), f"--texts {order.texts}")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeProblem(f"--texts {order.texts} cannot be read as UTF-8 text: {error}") from error


def _faces_for(vocabulary: Vocabulary, found: Sequence[Face]) -> tuple[Face, ...]:
    """Fonts with all letters of a script, and with those of the user's own lines where there are any.

    Fonts with the letters of the lines alone are taken where there are no others: some have signs in the place of A to
    Z, and no table of theirs tells.
    """
    whole = covering(found, vocabulary.script)
    if not vocabulary.lines:
        return tuple(whole)
    if chosen := _writing(vocabulary.lines, whole) or _writing(vocabulary.lines, found):
        return chosen
    line = next(line for line in vocabulary.lines if all(face.lacks(line) for face in found))
    best = min(found, key=lambda face: len(face.lacks(line)))
    raise RecipeProblem(
        f"--texts: no font has all letters of {line!r} ({best.name} lacks {best.lacks(line)!r}): install one that has, "
        "or give its folder with --fonts"
    )


def _writing(lines: Sequence[str], faces: Sequence[Face]) -> tuple[Face, ...]:
    """Fonts that can write all of the lines; without one, those that write some, if every line has its own."""
    whole = tuple(face for face in faces if not face.lacks("".join(lines)))
    if whole or any(all(face.lacks(line) for face in faces) for line in lines):
        return whole
    return tuple(face for face in faces if any(not face.lacks(line) for line in lines))


def _shares(order: Order, drawn: Sequence[Vocabulary]) -> list[float]:
    others = len(drawn) - 1
    if order.scripts or order.texts or others < 1 or all(vocabulary.name != "latin" for vocabulary in drawn):
        return [1.0] * len(drawn)
    return [LATIN_SHARE if vocabulary.name == "latin" else (1 - LATIN_SHARE) / others for vocabulary in drawn]


def _photos(order: Order) -> tuple[Path, ...]:
    if order.backgrounds is None:
        return ()
    found = tuple(sorted(file for file in order.backgrounds.rglob("*") if file.suffix.lower() in PHOTOS))
    if not found:
        raise RecipeProblem(f"--backgrounds {order.backgrounds}: there are no pictures ({', '.join(PHOTOS)}) in it")
    return found
