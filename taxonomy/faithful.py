"""Does a text say what was asked for? One rule for every writer, a grammar or a language model."""

import re
from collections.abc import Mapping

from taxonomy.briefs import Brief
from taxonomy.english import NUMBERS

WORDS = (30, 60)
"""Least and most words of a prompt."""


def unstated(text: str, brief: Brief) -> dict[str, str]:
    """The dimensions of a brief, and its item, that a text does not state, each with the exact words that it lacks.

    Words are looked for whole and without regard to capitals, texts letter for letter between quotation marks.
    """
    said = _plain(text)
    lacks: dict[str, str] = {}
    for name, words in wanted_words(brief).items():
        exact = f'"{brief.facts["text"]}"' if name == "text" else None
        if (exact not in text) if exact else not _holds(said, _plain(words)):
            lacks[name] = words
    return lacks


def wanted_words(brief: Brief) -> dict[str, str]:
    """The exact words of the item and of each dimension."""
    facts: Mapping[str, str | int] = brief.facts
    count = int(facts["count"])
    noun = str(facts["items"] if count > 1 else facts["item"])
    found = {"item": noun}
    for dimension in brief.dimensions:
        if dimension == "count":
            found[dimension] = NUMBERS[count]
        elif dimension == "spatial relationship":
            found[dimension] = f"{facts['relation']} {facts['other']}"
        elif dimension == "interaction":
            found[dimension] = str(facts["action"])
        else:
            found[dimension] = str(facts[dimension])
    return found


def number_of_words(text: str) -> int:
    return len(text.split())


def outside(text: str) -> int:
    """By how many words a text is shorter or longer than a prompt should be."""
    least, most = WORDS
    return max(least - number_of_words(text), number_of_words(text) - most, 0)


def _holds(said: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", said) is not None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
