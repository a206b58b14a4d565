"""Criteria for one prompt, written by a language model and believed only as far as they can be used.

The paper's criteria are of this kind: ten that are specific to a prompt, and one about the picture as a whole.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lens_core.asking import AskModel, ModelProblem
from lens_core.records import Criterion
from lens_core.templates import Template
from rubrics.comparing import contradict, same
from rubrics.rubric import RUBRICS
from rubrics.statements import faults_of

WANTED = 10
ATTEMPTS = 3
"""Replies in all: a first one, and others for what was missing."""
LONGEST_NAME = 60
KINDS = ("count", "attribute", "colour", "spatial relationship", "action", "text", "style", "anatomy", "setting")
SOURCE = (RUBRICS / "writer.j2").read_text(encoding="utf-8")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "criteria": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "kind": {"type": "string", "enum": list(KINDS)},
                    "text": {"type": "string"},
                },
                "required": ["name", "kind", "text"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["criteria"],
    "additionalProperties": False,
}


class Unfinished(ModelProblem):
    """The model did not write enough that can be used; `criteria` is what it did write, to go on from."""

    def __init__(self, message: str, criteria: tuple[Criterion, ...]):
        super().__init__(message)
        self.criteria = criteria


class _Written(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    kind: str
    text: str


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    criteria: list[Any]


class CriteriaWriter:
    """`await writer.write(prompt)`: ten criteria of a prompt, then those that every prompt gets."""

    def __init__(self, model: AskModel, *, wanted: int = WANTED):
        self._model, self._wanted = model, wanted
        variables = {"part", "prompt", "kinds", "have", "refused", "missing"}
        self._template = Template(SOURCE, where="writer.j2", variables=variables)

    async def write(
        self, prompt: str, always: Sequence[Criterion] = (), have: Sequence[Criterion] = ()
    ) -> tuple[Criterion, ...]:
        """New criteria after those of `have`, then `always`. Half a list is asked for again, only what is missing.

        Raises Unfinished where `ATTEMPTS` replies were not enough, and ModelProblem where no reply came.
        """
        kept, refused = list(have)[: self._wanted], []
        for _ in range(ATTEMPTS):
            if len(kept) == self._wanted:
                break
            reply = await self._model.ask(self._messages(prompt, kept, refused), SCHEMA)
            refused = list(self._take(reply, kept, always))
        if len(kept) < self._wanted:
            last = f"; of the last: {refused[0]}" if refused else ""
            raise Unfinished(
                f"prompt {prompt!r}: {self._model.name} wrote {len(kept)} of {self._wanted} criteria that can be used, "
                f"in {ATTEMPTS} replies{last}",
                tuple(kept),
            )
        return (*kept, *always)

    def _messages(self, prompt: str, kept: Sequence[Criterion], refused: Sequence[str]) -> list[dict[str, str]]:
        values = {
            "prompt": prompt,
            "kinds": list(KINDS),
            "have": [{"name": one.name, "text": one.text} for one in kept],
            "refused": list(refused),
            "missing": self._wanted - len(kept),
        }
        return [
            {"role": part, "content": self._template.render(part=part, **values).strip()} for part in ("system", "user")
        ]

    def _take(self, reply: str, kept: list[Criterion], always: Sequence[Criterion]) -> Iterator[str]:
        """Add the usable criteria of a reply to `kept`; yields why the others are not."""
        try:
            written = _Reply.model_validate_json(reply).criteria
        except ValidationError as error:
            yield f"the whole reply: {_reason(error)}"
            return
        for item in written:
            if len(kept) == self._wanted:
                return
            try:
                one = _Written.model_validate(item)
            except ValidationError as error:
                yield f"{item!r}: {_reason(error)}"
                continue
            criterion = Criterion(one.name.strip(), one.text.strip(), one.kind)
            if reason := next(_objections(criterion, [*kept, *always]), None):
                yield f"{criterion.name}: {criterion.text} ({reason})"
            else:
                kept.append(criterion)


def _objections(one: Criterion, others: Iterable[Criterion]) -> Iterator[str]:
    """Why a criterion cannot stand, by itself or beside those that are there."""
    if one.kind not in KINDS:
        yield f"its kind is none of {', '.join(KINDS)}"
    if not one.name or len(one.name) > LONGEST_NAME or "\n" in one.name:
        yield f"its name should be one line of at most {LONGEST_NAME} characters"
    for fault in faults_of(one.text):
        yield f"{fault.message}; {fault.fix}"
    for other in others:
        if one.name.casefold() == other.name.casefold():
            yield f"there is a criterion of the name {other.name!r} already"
        if same(one.text, other.text):
            yield f"it says what {other.name!r} says"
        if contradict(one.text, other.text):
            yield f"it contradicts {other.name!r}"


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where + ': ' if where else ''}{first['msg']}"
