"""Two statements beside each other, and a statement beside its check: the same twice, or not both at once?"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rubrics.statements import COLOURS, unquoted

NUMBERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10,
}  # fmt: skip
_OPPOSITES = [
    set(pair.split())
    for pair in (
        "left right", "above below", "over under", "before behind", "inside outside", "open closed", "day night",
        "indoors outdoors", "empty full", "standing sitting", "wet dry", "young old", "large small", "big small",
        "tall short", "bright dark", "light dark", "first last", "top bottom", "smiling frowning", "more fewer",
    )
]  # fmt: skip
_IDLE = frozenset({
    "a", "an", "the", "there", "is", "are", "exactly", "in", "on", "of", "picture", "image", "that", "be", "can",
    "seen", "shown", "visible", "appears",
})  # fmt: skip
_ARTICLES = frozenset(["a", "an", "the"])
_NEGATIONS = frozenset(["no", "not", "never", "none"])
_STANDS = re.compile(r"^(?P<a>.+?) (?:is|are) (?:to the )?(?P<side>left of|right of|above|below|under|over) (?P<b>.+)$")
_MIRRORED = {"right of": "left of", "below": "above", "under": "above", "over": "above"}


def same(one: str, other: str) -> bool:
    """Whether two statements say the same in other filler words, or as seen from the other side."""
    mine, theirs = _content(one), _content(other)
    return (bool(mine) and mine == theirs) or (_standing(one) is not None and _standing(one) == _standing(other))


def contradict(one: str, other: str) -> bool:
    """Whether no picture can make both true, as far as one word of difference shows."""
    mine, theirs = _bare(one), _bare(other)
    a, b = _standing(one), _standing(other)
    if a and b and a == (b[0], b[2], b[1]):
        return True
    if [word for word in mine if word not in _NEGATIONS] == [word for word in theirs if word not in _NEGATIONS]:
        return bool(_NEGATIONS & set(mine)) != bool(_NEGATIONS & set(theirs))
    differing = [pair for pair in zip(mine, theirs, strict=False) if pair[0] != pair[1]]
    if len(mine) != len(theirs) or len(differing) != 1:
        return False
    x, y = differing[0]
    if {x, y} in _OPPOSITES or (_is_number(x) and _is_number(y)):
        return True
    about_one_thing = re.match(r"(?:the|every|each|all|its)\b.* (?:is|are) \w+\W*$", one.strip(), re.IGNORECASE)
    return bool(about_one_thing) and {x, y} <= COLOURS and mine[-1] == x


def disagreement(text: str, check: Mapping[str, Any]) -> str | None:
    """What a check says that its text does not, or the other way round; None where they agree.

    A check's words stand in its text, its numbers as digits or words, what it is `of` before what it is `to`.
    """
    words = [_singular(word) for word in _tokens(text)]
    values = {key: value for key, value in check.items() if key != "kind"}
    for key, value in values.items():
        for leaf in _leaves(value):
            if missing := _missing(leaf, words):
                return f"its check has {key}: {value!r}, and its text does not say {missing!r}"
    named = {word for leaf in _leaves(list(values.values())) for word in _tokens(str(leaf))}
    negated = (_NEGATIONS & set(_tokens(unquoted(text)))) - named  # there are signs that are named "no entry"
    if negated and values and "structure" not in str(check.get("kind")) and 0 not in _leaves(list(values.values())):
        return f"its text says {sorted(negated)[0]!r}, and its check does not"
    places = [_place(values[key], words) for key in ("of", "to") if isinstance(values.get(key), str)]
    if len(places) == 2 and places[0] > places[1]:
        return f"its text names {values['to']!r} before {values['of']!r}, and its check the other way round"
    return None


def _missing(leaf: Any, words: list[str]) -> str | None:
    """The first word of a check's value that its text lacks."""
    if isinstance(leaf, bool) or leaf is None:
        return None
    if isinstance(leaf, int):
        said = {NUMBERS.get(word, word) for word in words}
        return None if leaf in said or str(leaf) in words or (leaf == 0 and _NEGATIONS & set(words)) else str(leaf)
    return next(
        (w for w in map(_singular, _tokens(str(leaf))) if w not in words and w not in ("object", "thing")), None
    )


def _leaves(value: Any) -> list[Any]:
    def walk(inner: Any) -> Iterator[Any]:
        if isinstance(inner, Mapping):
            inner = list(inner.values())
        if isinstance(inner, list | tuple):
            for one in inner:
                yield from walk(one)
        else:
            yield inner

    return list(walk(value))


def _place(phrase: str, words: list[str]) -> int:
    """Where a phrase begins among the words; -1 where it does not stand there as it is."""
    wanted = [_singular(word) for word in _tokens(phrase)]
    starts = (at for at in range(len(words)) if words[at : at + len(wanted)] == wanted)
    return next(starts, -1)


def _standing(text: str) -> tuple[str, str, str] | None:
    """(side, first, second) of a statement about place, told from one of its two sides."""
    found = _STANDS.match(" ".join(_bare(text)))
    if found is None:
        return None
    side = found["side"]
    if side in ("left of", "above", "over"):
        return _MIRRORED.get(side, side), found["a"], found["b"]
    return _MIRRORED[side], found["b"], found["a"]


def _bare(text: str) -> list[str]:
    return [word for word in _tokens(text) if word not in _ARTICLES]


def _content(text: str) -> list[str]:
    return [_singular(word) for word in _tokens(text) if word not in _IDLE]


def _tokens(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def _singular(word: str) -> str:
    """Near enough to compare by: both sides go through it."""
    for ending, instead in (("ies", "y"), ("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh")):
        if word.endswith(ending):
            return word.removesuffix(ending) + instead
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def _is_number(word: str) -> bool:
    return word.isdigit() or word in NUMBERS
