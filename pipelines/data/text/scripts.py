"""Writing systems and what is written in them: `scripts.yaml`, or lines of the user's own."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from lens_core.recipes import RecipeProblem, Strict, load_recipe, nearest

SCRIPTS = Path(__file__).parent / "scripts.yaml"
LINE_SHARE = 0.45
"""Of the texts that are whole lines; the others are words put together."""
NUMBER_SHARE = 0.06
"""Of the words: prices, times, years."""
FORMATS = ("{:d}", "{:d}%", "${:d}.99", "{:d}:30")
SPOKEN_OF = {"cjk": "chinese", "hiragana": "japanese", "katakana": "japanese", "hangul": "korean"}
"""Script of a character whose Unicode name begins so; else the name's first word is the script's."""


class Script(Strict):
    """The fields of a script; what they mean is said at the top of `scripts.yaml`."""

    capitals: Literal["all", "first"] | None = None
    spaced: bool = True
    rtl: bool = False
    shaped: bool = False
    region: str | None = None
    package: str
    words: str
    lines: Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def joint(self) -> str:
        """What stands between two words."""
        return " " if self.spaced else ""

    @property
    def alphabet(self) -> str:
        """Every letter and mark that its texts may hold, capitals included; many fonts leave digits to others."""
        texts = "".join((self.words, *self.lines))
        letters = set(texts + texts.upper() if self.capitals else texts)
        return "".join(sorted(c for c in letters if unicodedata.category(c)[0] in "LM"))


class _File(Strict):
    scripts: dict[str, Script]


@cache
def shipped() -> Mapping[str, Script]:
    """Every script of `scripts.yaml` by name."""
    return load_recipe(_File, SCRIPTS).scripts


def script_named(name: str) -> Script:
    """Raises RecipeProblem with the nearest name."""
    if name not in shipped():
        known = ", ".join(shipped())
        raise RecipeProblem(f"--script: unknown script {name!r}{nearest(name, shipped())}; there are: {known}")
    return shipped()[name]


def script_of(text: str) -> str | None:
    """The script that most letters of a text are of; None where it has no letter. Kana make Japanese of Han."""
    found: Counter[str] = Counter()
    for character in text:
        if unicodedata.category(character)[0] == "L":
            first = unicodedata.name(character, "?").split()[0].lower().split("-")[0]
            found[SPOKEN_OF.get(first, first)] += 1
    if found["japanese"]:
        found["japanese"] += found.pop("chinese", 0)
    return found.most_common(1)[0][0] if found else None


@dataclass(frozen=True, slots=True)
class Text:
    """Words with what stands between them; lines may be broken there and nowhere else."""

    words: tuple[str, ...]
    joint: str = " "

    def __str__(self) -> str:
        return self.joint.join(self.words)


@dataclass(frozen=True)
class Vocabulary:
    """What is written in one script: its own words and lines, or only `lines` of the user's, letter for letter."""

    name: str
    script: Script
    lines: tuple[str, ...] = ()

    def write(self, random: Random, most_words: int) -> Text:
        """A text of one to `most_words` words; a line of the user's own may have more."""
        joint = self.script.joint
        if self.lines:
            return self._apart(random.choice(self.lines))
        lines = [line for line in self.script.lines if len(line.split()) <= most_words]
        if lines and most_words > 1 and random.random() < LINE_SHARE:
            words = random.choice(lines).split(" ")
        else:
            words = [self._word(random) for _ in range(random.randint(1, most_words))]
        return Text(tuple(self._in_case(joint.join(words), random).split(" ") if joint else words), joint)

    def _apart(self, line: str) -> Text:
        """A line may be broken at its spaces; Chinese and Japanese, which have none, between any two letters."""
        if self.script.region and not self.script.spaced:
            return Text(tuple(line), "")
        return Text(tuple(line.split(" ")))

    def _word(self, random: Random) -> str:
        if random.random() < NUMBER_SHARE:
            return random.choice(FORMATS).format(random.randint(1, 12))
        return random.choice(_words(self.script.words))

    def _in_case(self, text: str, random: Random) -> str:
        """As it is, in capitals, or with a capital first letter: signs and screens have all of them."""
        if self.script.capitals is None:
            return text
        way = random.random()
        if way < 0.3 and self.script.capitals == "all" and len(text.upper()) == len(text):  # not where ß becomes SS
            return text.upper()
        return text[:1].upper() + text[1:] if way < 0.75 else text


@cache
def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


def own_vocabularies(lines: Iterable[str], where: str) -> list[Vocabulary]:
    """The user's lines, script by script. Raises RecipeProblem where there are none."""
    by_script: dict[str, list[str]] = {}
    for line in (line.strip() for line in lines):
        if line:
            by_script.setdefault(script_of(line) or "latin", []).append(line)
    if not by_script:
        raise RecipeProblem(f"{where}: there is no line of text in it")
    unknown = Script(shaped=True, package="fonts-noto-core", words="", lines=("-",))
    return [Vocabulary(name, shipped().get(name, unknown), tuple(own)) for name, own in sorted(by_script.items())]
