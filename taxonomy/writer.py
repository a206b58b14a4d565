"""The writer that asks a language model: structured replies, checked against their briefs, and asked for again."""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lens_core.asking import AskModel, ModelProblem
from lens_core.recipes import Strict
from lens_core.templates import Template
from taxonomy.briefs import Brief
from taxonomy.english import NUMBERS
from taxonomy.faithful import WORDS, outside, unstated

TEMPLATE = Path(__file__).parent / "writer.j2"
PER_REQUEST = 8
ROUNDS = 4
"""How often a brief is asked for before the writer gives up."""

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "prompts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "text": {"type": "string"}},
                "required": ["id", "text"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["prompts"],
    "additionalProperties": False,
}


class _Text(Strict):
    id: str
    text: str


class _Reply(Strict):
    prompts: tuple[_Text, ...]


@dataclass
class ModelWriter:
    """Writes through an `AskModel`. `journal` keeps every accepted text, so that nothing is asked twice."""

    ask: AskModel
    journal: Path
    concurrency: int = 16
    batch: int = 256
    _kept: dict[str, str] = field(default_factory=dict, init=False)
    _loop: asyncio.Runner = field(default_factory=asyncio.Runner, init=False)
    """One for all batches: a client's connections live in the loop that opened them."""

    def __post_init__(self) -> None:
        source = TEMPLATE.read_text(encoding="utf-8")
        self._template = Template(source, where=str(TEMPLATE), variables={"part", "briefs", "least", "most"})
        self.name = f"{self.ask.name} {self._template.hash[:12]}"
        if self.journal.is_file():
            # What follows the last end of line is a line that a kill tore.
            for line in self.journal.read_text(encoding="utf-8").split("\n")[:-1]:
                kept = json.loads(line)
                if kept["writer"] == self.name:
                    self._kept[kept["key"]] = kept["text"]

    def write(self, briefs: Sequence[Brief]) -> list[str]:
        """A text for each brief. Raises ModelProblem where some stay unwritten; those that came are kept."""
        complaints: dict[str, str] = {}
        for _ in range(ROUNDS):
            missing = [brief for brief in briefs if _key(brief) not in self._kept]
            if not missing:
                return [self._kept[_key(brief)] for brief in briefs]
            complaints = self._loop.run(self._round(missing, complaints))
        missing = [brief for brief in briefs if _key(brief) not in self._kept]
        if missing:
            first = missing[0]
            raise ModelProblem(
                f"{self.ask.name} left {len(missing)} of {len(briefs)} prompts unwritten after {ROUNDS} rounds; the "
                f"first is on {first.facts['item']!r}: {complaints.get(first.id, 'no text came')}. The others are in "
                f"{self.journal}: the same command goes on from there"
            )
        return [self._kept[_key(brief)] for brief in briefs]

    async def _round(self, briefs: Sequence[Brief], complaints: Mapping[str, str]) -> dict[str, str]:
        """Ask for the briefs once, several requests at a time; returns what was wrong with each that did not come."""
        turnstile = asyncio.Semaphore(self.concurrency)
        groups = [briefs[first : first + PER_REQUEST] for first in range(0, len(briefs), PER_REQUEST)]

        async def asked(group: Sequence[Brief]) -> dict[str, str]:
            async with turnstile:
                return self._kept_of(group, await self.ask.ask(self._messages(group, complaints), SCHEMA))

        found = await asyncio.gather(*(asked(group) for group in groups), return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome
        return {id_: complaint for outcome in found if isinstance(outcome, dict) for id_, complaint in outcome.items()}

    def _messages(self, briefs: Sequence[Brief], complaints: Mapping[str, str]) -> list[dict[str, str]]:
        least, most = WORDS
        asked = [{"id": b.id, "facts": _told(b), "wrong before": complaints.get(b.id, "")} for b in briefs]
        system, user = (
            self._template.render(part=part, briefs=asked, least=least, most=most).strip()
            for part in ("system", "user")
        )
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]

    def _kept_of(self, briefs: Sequence[Brief], reply: str) -> dict[str, str]:
        """Keep the texts that can be used; returns what is wrong with the others."""
        try:
            texts = {text.id: text.text for text in _Reply.model_validate_json(reply).prompts}
        except ValidationError as error:
            return {brief.id: f"the reply was not of the asked form: {error.errors()[0]['msg']}" for brief in briefs}
        wrong = {brief.id: complaint for brief in briefs if (complaint := _complaint(texts.get(brief.id), brief))}
        good = {_key(brief): texts[brief.id] for brief in briefs if brief.id not in wrong}
        self._kept |= good
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        with self.journal.open("a", encoding="utf-8") as file:
            for key, text in good.items():
                file.write(json.dumps({"writer": self.name, "key": key, "text": text}, ensure_ascii=False) + "\n")
        return wrong


def _complaint(text: str | None, brief: Brief) -> str | None:
    """What is wrong with a text, said so that the next one can be right."""
    if text is None:
        return "no text came for this id"
    if text != " ".join(text.split()):
        return "the text must be one paragraph on one line, with single spaces"
    if off := outside(text):
        return f"the text is {off} words too {'short' if len(text.split()) < WORDS[0] else 'long'}"
    if lacks := unstated(text, brief):
        return "the text lacks these exact words: " + "; ".join(f"{name}: {words!r}" for name, words in lacks.items())
    return None


def _told(brief: Brief) -> dict[str, str]:
    """The facts as a model is told them: the words that must stand in its text, by what they describe."""
    facts = {
        name: str(value) for name, value in brief.facts.items() if name not in ("item", "items", "manner", "count")
    }
    count = int(brief.facts["count"])
    thing = str(brief.facts["items"] if count > 1 else brief.facts["item"])
    if "other" in facts:
        facts["relation"] = f"{facts['relation']} {facts.pop('other')}"
    return {"subject": thing, "number": NUMBERS[count], **facts}


def _key(brief: Brief) -> str:
    """What a kept text is known by: the brief, with all of its facts."""
    told = json.dumps([brief.id, brief.attempt, dict(brief.facts)], ensure_ascii=False)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
