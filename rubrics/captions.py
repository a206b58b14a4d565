"""Captions of pictures: how a language model is asked for one, and what makes its reply no use.

What a caption should be is the template's to say (`caption.j2`, or one of the user's own); what is checked here is what
goes wrong in practice: refusals, loops, replies in another language, lists, remarks about text that is not there.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from lens_core.recipes import RecipeProblem
from lens_core.templates import Template, UnknownVariable
from rubrics.rubric import RUBRICS

Kind = Literal["dense", "brief"]
KINDS: tuple[Kind, ...] = ("dense", "brief")
VARIABLES = frozenset({"part", "kind", "most_words", "refused"})

WORDS: dict[Kind, tuple[int, int]] = {"dense": (20, 500), "brief": (2, 40)}
"""The least and most words of a caption; what has fewer or more is none."""
MOST_REPEATED = 0.2
"""Share of a text's runs of four words that stood in it before. Prose has a few hundredths, a model in a loop most."""
LEAST_ENGLISH = 0.12
"""Share of the words that are little English ones, below which a text of many words is in another language."""
_LITTLE_WORDS = (
    "a an the of and in on with is are at by from to its his her it that which there while as for behind against one "
    "two into over under near across along around between each their"
)
ENGLISH = frozenset(_LITTLE_WORDS.split())
ENGLISH_WORDS_FROM = 12
"""Words from which on the language of a text can be told."""
QUOTED = re.compile(r'"[^"]*"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』')

_CANNOT = r"(?:can't|cannot|can not|won't|(?:am|'m) (?:unable|not able) to)"
_REFUSAL = re.compile(
    rf"^(?:(?:i'm|i am) )?(?:sorry|unable|not able)\b|^unfortunately\b|^as an ai\b|^i {_CANNOT}\b|"
    rf"\bi ?{_CANNOT} (?:help|assist|describe|caption|identify|provide|view|see|process)",
    re.I,
)
_LOOP = re.compile(r"(.{2,40}?)\1{7,}", re.S)
_LAYOUT = re.compile(r"\*\*|^\s*(?:#{1,6} |[-*\u2022] |\d+[.)] )", re.M)
_HEADING = re.compile(r"^(?:here(?:'s| is)\b[^.]{0,60}:|(?:dense |brief |detailed )?caption:)", re.I)
_NO_TEXT = re.compile(
    r"\b(?:no|without(?: any)?|not contain any|lacks any)(?: visible| legible| readable| discernible)? "
    r"(?:text|writing|words|lettering)\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a reply is no caption. `status` as in `lens_rl.judges.backend.Status`; `reason` goes back to the model."""

    status: Literal["refusal", "invalid"]
    reason: str


class CaptionTemplate:
    """The messages that ask for a caption. Raises RecipeProblem, TemplateProblem for a file that cannot be used."""

    def __init__(self, path: Path = RUBRICS / "caption.j2"):
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeProblem(f"--template {path} cannot be read: {error}") from error
        self._template = Template(source, where=str(path), variables=VARIABLES)
        self.hash = self._template.hash
        for kind in KINDS:
            if not all(self.messages(kind)):
                raise UnknownVariable(f'{path}: it says nothing for part "system" or "user" of kind {kind!r}')

    def messages(self, kind: Kind, refused: str = "") -> tuple[str, str]:
        """System and user text; `refused`: why an earlier reply could not be used."""
        values = {"kind": kind, "most_words": WORDS[kind][1], "refused": refused}
        system, user = (self._template.render(part=part, **values).strip() for part in ("system", "user"))
        return system, user


@dataclass(frozen=True)
class Caption:
    """A reply, on one line; what is quoted in it is kept letter for letter."""

    text: str

    @classmethod
    def of(cls, reply: str) -> "Caption":
        return cls(unicodedata.normalize("NFC", " ".join(reply.split())))

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def quotations(self) -> list[str]:
        """The texts that it says stand in the picture."""
        return [found[0][1:-1] for found in QUOTED.finditer(self.text)]

    @cached_property
    def prose(self) -> list[str]:
        """Its words outside of quotations, in small letters and without punctuation."""
        return re.findall(r"[^\W\d_]+", QUOTED.sub(" ", self.text).lower())


def fault_of(reply: str, kind: Kind) -> Fault | None:
    """What makes a reply no caption of that kind; None where nothing does."""
    caption = Caption.of(reply)
    least, most = WORDS[kind]
    plain = caption.text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if _REFUSAL.search(plain[:200]):
        return Fault("refusal", f"it refuses: {caption.text[:80]!r}")
    if repetition(caption.words) > MOST_REPEATED or _LOOP.search(caption.text):
        return Fault("invalid", "it repeats itself")
    if _LAYOUT.search(reply) or _HEADING.search(plain):
        return Fault("invalid", "it has a heading or a list; prose is wanted, and nothing but the caption")
    if len(caption.words) > most:
        return Fault("invalid", f"it has {len(caption.words)} words; {most} are the most")
    if not _is_english(caption.prose):
        return Fault("invalid", "it is not in English; only what is quoted from the picture is in another language")
    if len(caption.words) < least:
        return Fault("invalid", f"it has {len(caption.words)} words; {least} are the least")
    if not caption.quotations and _NO_TEXT.search(caption.text):
        return Fault("invalid", "it speaks of text although there is none")
    return None


def repetition(words: Sequence[str]) -> float:
    """Share of the runs of four words that stood there before, in [0, 1]; 0 for fewer than eight words."""
    if len(words) < 8:
        return 0.0
    runs = [tuple(word.lower() for word in words[start : start + 4]) for start in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs)


def _is_english(prose: Sequence[str]) -> bool:
    """By its letters, which are Latin, and, where there are enough, by its little words."""
    letters = "".join(prose)
    if not letters:
        return True
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters) / len(letters)
    if latin < 0.9:
        return False
    return len(prose) < ENGLISH_WORDS_FROM or sum(word in ENGLISH for word in prose) / len(prose) >= LEAST_ENGLISH
