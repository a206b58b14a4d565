"""Fonts: which there are, what they look like, and whether they have a glyph for every letter of a text.

A character counts as covered where the glyph that FreeType draws for it is neither the one that it draws for what no
font has, nor one that stands for all of its neighbours too. Nothing is drawn in a font that does not cover it, so no
picture holds a box in a letter's place.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont, features

from lens_core.recipes import RecipeProblem
from pipelines.data.text.scripts import Script

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
SYSTEM_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.fonts",
    "~/.local/share/fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
MOST_FACES = 32
"""Faces of one collection."""
PROBE = 24
"""Pixels of a letter that is drawn to see whether it is there."""
NOWHERE = 0x10FFFF
"""A code point that will never be a character."""
EMPTY = b""
"""The glyph of what leaves no ink."""
UNSEEN = ("Cf", "Zs", "Mn", "Me")
"""Categories whose characters have no glyph of their own to look at: joiners, spaces, marks on other letters."""
KINDS = {"mono": "monospace", "courier": "monospace", "sans": "sans-serif", "serif": "serif", "times": "serif"}
"""What the name of a family gives away; sans stands before serif."""
WEIGHTS = ("thin", "light", "bold", "black", "condensed", "italic", "oblique")


@dataclass(frozen=True, slots=True)
class Face:
    """One face of a font file."""

    file: Path
    index: int
    family: str
    style: str

    @property
    def name(self) -> str:
        return f"{self.family} {self.style}"

    @property
    def looks(self) -> str:
        """In words that its name gives away, such as `bold sans-serif`; empty where it gives away nothing."""
        name = f"{self.family} {self.style}".lower()
        kind = next((kind for sign, kind in KINDS.items() if sign in name), "")
        weights = ["italic" if weight == "oblique" else weight for weight in WEIGHTS if weight in self.style.lower()]
        return " ".join([*dict.fromkeys(weights), *([kind] if kind else [])])

    def at(self, pixels: int) -> ImageFont.FreeTypeFont:
        """The face with letters of so many pixels an em."""
        return _opened(self.file, self.index, pixels, ImageFont.Layout.RAQM if can_shape() else ImageFont.Layout.BASIC)

    def lacks(self, text: str) -> str:
        """The characters of a text that it has no glyph for, each once."""
        return "".join(character for character in dict.fromkeys(text) if not self.has(character))

    def has(self, character: str) -> bool:
        return _has(self.file, self.index, character)


def can_shape() -> bool:
    """Whether this Pillow sets Arabic, Indic and other scripts whose letters depend on their neighbours."""
    return bool(features.check("raqm"))


def find_faces(folders: Sequence[Path] = ()) -> list[Face]:
    """Every face in the folders, in an order of their own; without any, in those where systems keep them.

    The fonts that come with matplotlib, where it is installed, count as the system's. Raises RecipeProblem where there
    is none, with what to install.
    """
    for folder in folders:
        if not folder.is_dir():
            raise RecipeProblem(f"--fonts {folder}: there is no such folder")
    searched = list(folders) or [Path(folder).expanduser() for folder in SYSTEM_FOLDERS] + _of_matplotlib()
    faces = {(face.family, face.style): face for file in reversed(_files(searched)) for face in _faces(file)}
    if not faces:
        raise RecipeProblem(
            f"--fonts: there is no font ({', '.join(SUFFIXES)}) in {', '.join(map(str, searched))}: give a folder that "
            "has some, or install them, on Debian with `apt install fonts-dejavu fonts-noto-core fonts-noto-cjk`"
        )
    return sorted(faces.values(), key=lambda face: (face.family, face.style))


def covering(faces: Iterable[Face], script: Script) -> list[Face]:
    """Those that have every letter of a script, in the forms of its region."""
    alphabet = script.alphabet
    regional = [face for face in faces if script.region in (None, *face.family.split()) or "CJK" not in face.family]
    return [face for face in regional if all(face.has(letter) for letter in alphabet)]


def _files(folders: Iterable[Path]) -> list[Path]:
    found = (Path(top) / name for folder in folders for top, _, names in os.walk(folder) for name in names)
    return sorted(file for file in found if file.suffix.lower() in SUFFIXES)


def _of_matplotlib() -> list[Path]:
    from importlib.util import find_spec

    spec = find_spec("matplotlib")
    return [Path(place) / "mpl-data" / "fonts" / "ttf" for place in (spec and spec.submodule_search_locations) or []]


def _faces(file: Path) -> Iterable[Face]:
    """The faces that can be drawn at any size; bitmap fonts cannot."""
    for index in range(MOST_FACES if file.suffix.lower() in (".ttc", ".otc") else 1):
        try:
            family, style = ImageFont.truetype(str(file), PROBE, index=index).getname()
        except OSError:
            return
        yield Face(file, index, family or file.stem, style or "Regular")


@lru_cache(maxsize=512)
def _opened(file: Path, index: int, pixels: int, layout: ImageFont.Layout) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), pixels, index=index, layout_engine=layout)


@cache
def _has(file: Path, index: int, character: str) -> bool:
    if unicodedata.category(character) in UNSEEN:
        return True
    glyph = _glyph(file, index, ord(character))
    return glyph not in (EMPTY, _glyph(file, index, NOWHERE)) and not _stands_in(file, index, ord(character))


def _stands_in(file: Path, index: int, code: int) -> bool:
    """Whether three code points in a row have one glyph: fonts of last resort draw the same box for a whole script."""
    near = [_glyph(file, index, min(max(code + step, 1), NOWHERE)) for step in (-1, 0, 1)]
    if near[1] not in (near[0], near[2]):
        return False
    first, last = (_glyph(file, index, min(max(code + step, 1), NOWHERE)) for step in (-2, 2))
    row = [first, *near, last]
    return any(len(set(row[start : start + 3])) == 1 for start in range(3))


@cache
def _glyph(file: Path, index: int, code: int) -> bytes:
    """What a letter alone looks like: shaping would put a mark on a dotted circle that the text does not hold."""
    mask: Any = _opened(file, index, PROBE, ImageFont.Layout.BASIC).getmask(chr(code), "L")
    pixels = bytes(mask)
    return hashlib.blake2b(repr(mask.size).encode() + pixels, digest_size=12).digest() if any(pixels) else EMPTY
