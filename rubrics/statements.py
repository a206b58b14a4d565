"""What keeps a sentence from being a statement that anyone who looks can answer with yes or no.

Rules of thumb over English words, no grammar: they find the mistakes that people make when they write criteria, and
keep quiet about what they do not know. A test runs them over all that is shipped.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_WORDS, LONGEST_CHARACTERS = 60, 400


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a statement, and what to do about it."""

    code: str
    message: str
    fix: str


def faults_of(text: str, facts: Mapping[str, Any] | None = None) -> list[Fault]:
    """Everything that is wrong with one statement.

    What stands in quotation marks is not looked at, nor are the values of `facts`: "black and white" is one colour.
    """
    if not text.strip():
        return [Fault("empty", "the text is empty", "say what must be seen, or take the criterion out")]
    plain = masked(text, facts or {})
    return [fault for rule in _RULES if (fault := rule(plain)) is not None]


def masked(text: str, facts: Mapping[str, Any]) -> str:
    """The sentence with X for everything quoted and for every fact, in singular or plural."""
    text = unquoted(text.strip())
    values = sorted({value for value in facts.values() if isinstance(value, str) and value.strip()}, key=len)
    for value in reversed(values):
        text = re.sub(rf"\b{re.escape(value)}(?:e?s)?(?!\w)", "X", text, flags=re.IGNORECASE)
    return text


def unquoted(text: str) -> str:
    """The sentence with X for everything that stands in quotation marks."""
    return re.sub(r"\"[^\"]*\"|\u201c[^\u201d]*\u201d", "X", text)


def _question(text: str) -> Fault | None:
    if text.endswith("?") or _ASKS.match(text):
        return Fault("question", "it asks", "state what holds, as in 'The ball is red.'")
    return None


def _instruction(text: str) -> Fault | None:
    if found := _COMMANDS.match(text):
        return Fault("instruction", f"it tells the judge to do something ({found[0]!r})", "state what holds instead")
    return None


def _grade(text: str) -> Fault | None:
    if found := _GRADES.search(text):
        return Fault(
            "grade", f"it asks for a degree ({found[0]!r}); the answer is yes or no", "say from where on it holds"
        )
    return None


def _vague(text: str) -> Fault | None:
    if found := _VAGUE.search(text):
        return Fault("vague", f"{found[0]!r} means something else to everybody", "say what can be seen in the picture")
    return None


def _two_facts(text: str) -> Fault | None:
    first, *others = [part for part in _JOINTS.split(text.rstrip(". ")) if part]
    two = _TWO_ADJECTIVES.match(text.rstrip(". "))
    both_colours = two is not None and two[1].lower() in COLOURS and two[2].lower() in COLOURS
    things = _THERE_IS.match(first) is not None
    second = next(
        (
            part
            for part in others
            if not _COMPLETES.match(part) and (_CLAUSE.match(part) or (things and _ANOTHER_THING.match(part)))
        ),
        two[0] if two and not both_colours else None,
    )
    if second is None:
        return None
    fix = "write two criteria; where one needs the other, give it `requires:`"
    return Fault("two-facts", f"it states two things; the second is {second!r}", fix)


def _open_condition(text: str) -> Fault | None:
    if _CONDITION.search(text) and not _SETTLED.search(text):
        fix = "use `when:`, or say what holds otherwise, as in 'if it names none, this holds'"
        return Fault("open-condition", "it does not say what holds where its condition fails", fix)
    return None


def _double_negative(text: str) -> Fault | None:
    if len(_NEGATIONS.findall(text)) > 1:
        return Fault("double-negative", "it negates twice", "say it without a negation")
    return None


def _fragment(text: str) -> Fault | None:
    if len(text.split()) <= 6 and not _VERB.search(text):
        return Fault(
            "fragment", f"{text!r} says nothing about anything", "make it a sentence, as in 'The ball is red.'"
        )
    return None


def _long(text: str) -> Fault | None:
    words = len(text.split())
    if words > LONGEST_WORDS or len(text) > LONGEST_CHARACTERS:
        limit = f"{LONGEST_WORDS} words or {LONGEST_CHARACTERS} characters"
        return Fault("long", f"it has {words} words; judges lose the thread after {limit}", "say less, or split it")
    return None


_RULES: tuple[Callable[[str], Fault | None], ...] = (
    _question, _instruction, _grade, _vague, _two_facts, _open_condition, _double_negative, _fragment, _long,
)  # fmt: skip

COLOURS = frozenset({
    "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey", "gray", "gold",
    "golden", "silver", "beige", "cyan", "magenta", "turquoise", "violet", "crimson", "scarlet", "navy", "teal",
    "maroon", "ivory", "cream", "tan",
})  # fmt: skip


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


_ASKS = _words("is|are|does|do|did|has|have|can|could|was|were|will|should|how many|how much|how well|how")
_COMMANDS = _words(
    "check|verify|ensure|make sure|confirm|determine|evaluate|assess|decide|please"
    "|(?:count|judge|rate|score|grade|give|describe|look|see) (?:the|all|how|a|at|if|whether)"
)
_GRADES = _words(
    r"on a scale|out of (?:ten|five|\d+)|(?:from|between) (?:zero|one|\d+) (?:to|and) (?:five|ten|\d+)"
    r"|how (?:well|much|good|closely|accurately)|(?:degree|extent) to which|to what (?:degree|extent)"
    r"|rated?|(?:score|rating) of|as much as possible|at least partly|\d+ ?percent"
)
_VAGUE = _words(
    "good|nice|nicely|beautiful|beautifully|attractive|appealing|pleasing|aesthetics?|aesthetically|appropriate"
    "|appropriately|suitable|suitably|reasonable|reasonably|acceptable|acceptably|adequate|adequately|proper|properly"
    "|relevant|interesting|high[- ]quality|low[- ]quality|realistic|realistically|professional|somewhat|fairly|quite"
    "|mostly|generally|more or less|roughly|approximately|very|really|some kind of|etc|and so on|and/or|or similar"
    "|as expected|as it should|looks? right|well[- ](?:drawn|made|done|composed|rendered)|harmonious|creative|stunning"
    "|impressive|correctly|accurate|accurately"
)
_JOINTS = re.compile(r"\s*[.;]\s+|,?\s+\b(?:and|but|as well as|while|whereas)\b\s+", re.IGNORECASE)
_COMPLETES = _words("nothing|no|none|neither|never|nobody|where|if|when|unless|otherwise")
_FINITE = "is|are|has|have|can|stands?|sits?|lies|holds?|wears?|shows?|looks?|faces?|hangs?|reads?|carries"
_CLAUSE = re.compile(
    rf"(?:there|it|they|he|she|this|these|its|their)\b.*\b(?:{_FINITE})\b"
    rf"|(?:the|a|an|each|every|all|both|one|two|three|four|exactly|X)\b[^,:]*\b(?:{_FINITE})\b"
    rf"|(?:{_FINITE})\b",
    re.IGNORECASE,
)
_THERE_IS = _words("there (?:is|are)|the (?:picture|image|scene) (?:has|shows|contains)")
_ANOTHER_THING = _words(r"a|an|one|two|three|four|five|\d+|exactly|some|several")
_TWO_ADJECTIVES = re.compile(
    r"(?:the|a|an|every|each|all|both|its|X)\b[^,:]*\b(?:is|are)\s+([\w-]+)\s+and\s+([\w-]+)$", re.IGNORECASE
)
_CONDITION = re.compile(
    r"^(?:if|when|where|unless|in case)\b"
    r"|\b(?:if (?:any|present|possible|applicable|there)|when (?:present|possible))\b",
    re.IGNORECASE,
)
_SETTLED = _words("this holds|otherwise|else")
_NEGATIONS = re.compile(r"\b(?:not|never|cannot|isn't|aren't|doesn't|don't|hasn't)\b", re.IGNORECASE)
_VERB = _words(
    f"{_FINITE}|was|were|do|does|cannot|will|may|must|contains?|appears?|touch(?:es)?|says?|fills?|covers?|match(?:es)?"
    "|exists?|runs?|walks?|remains?|points?|leans?|rests?|floats?|flies|fly|surrounds?|consists?|comes?|belongs?|keeps?"
    "|carry|rides?|plays?|eats?|drinks?|reach(?:es)?|grows?|shines?|falls?|casts?|lie|follows?|fits?|makes?|takes?"
)
