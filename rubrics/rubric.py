"""Rubric files: criteria as templates over a prompt's text and facts, and how a judge is asked about them."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from lens_core.criteria import problem_of, problem_of_parents
from lens_core.recipes import RecipeProblem, Strict, dump_recipe, find_recipe, load_recipe
from lens_core.records import Criterion
from lens_core.templates import Condition, Template, TemplateProblem

RUBRICS = Path(__file__).parent
JUDGE_VARIABLES = frozenset({"part", "prompt", "criterion"})

Fact = str | int


class CriterionTemplate(Strict):
    """One criterion, rendered for a prompt where `when` holds (or always)."""

    name: str
    kind: str
    text: str
    check: dict[str, Any] | None = None
    """The same statement for judges that are programs; its texts are templates too."""
    when: str | None = None
    weight: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    """Its share in the reward beside the other criteria of the prompt."""
    requires: str | None = None
    """Another criterion: where that does not apply, this does not either; where that fails, this counts as failed."""


class RubricFile(Strict):
    """The fields of a rubric's YAML file."""

    name: str
    judge: Annotated[str, Field(pattern=r"^[\w.-]+\.j2$")] = "judge.j2"
    """Template of the messages to a language model: a file beside this one, or one that is shipped. Never a path, so
    that a rubric of somebody else's cannot send another file to a judge."""
    facts: dict[str, tuple[Fact, ...]] = Field(default_factory=dict)
    """Facts that the criteria may ask for, with examples of their values; a prompt need not have all of them."""
    words: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Named tables for the templates, such as number words."""
    criteria: Annotated[tuple[CriterionTemplate, ...], Field(min_length=1)]

    @field_validator("facts", mode="before")
    @classmethod
    def names_alone(cls, facts: Any) -> Any:
        """A list of names stands for facts without examples."""
        if isinstance(facts, dict):
            return {name: tuple(values) if isinstance(values, list) else values for name, values in facts.items()}
        if not isinstance(facts, list):
            return facts
        if doubled := next((name for name in facts if facts.count(name) > 1), None):
            raise ValueError(f"{doubled!r} is given twice")
        return {str(name): () for name in facts}

    @model_validator(mode="after")
    def makes_sense(self) -> "RubricFile":
        names = {*self.facts, *self.words}
        if len(names) < len(self.facts) + len(self.words) or "prompt" in names:
            raise ValueError("facts and words: a name is given twice, or is `prompt`: rename one of them")
        parents: dict[str, str | None] = {}
        for one in self.criteria:
            if parents.setdefault(one.name, one.requires) != one.requires:
                raise ValueError(f"two criteria are named {one.name!r} and require different ones: rename one")
        if problem := problem_of_parents(parents):
            raise ValueError(problem)
        return self

    @property
    def variables(self) -> frozenset[str]:
        """What the templates of the criteria may ask for."""
        return frozenset({"prompt", *self.facts, *self.words})


@dataclass(frozen=True, slots=True)
class RubricSource:
    """A rubric as it stands in its files."""

    file: RubricFile
    path: Path
    judge: str
    """Source of the template that a language model is asked with."""
    judge_path: Path


def read_rubric(name: str) -> RubricSource:
    """A rubric by name (one of `rubrics/`) or by path, with its judge template; nothing is compiled.

    Raises RecipeProblem that names file, line and fix.
    """
    path = find_recipe(name, RUBRICS, what="rubric")
    file = load_recipe(RubricFile, path)
    judge = next((folder / file.judge for folder in (path.parent, RUBRICS) if (folder / file.judge).is_file()), None)
    if judge is None:
        raise RecipeProblem(f"{path}: judge: there is no template {file.judge} beside it nor among the shipped ones")
    try:
        return RubricSource(file, path, judge.read_text(encoding="utf-8"), judge)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeProblem(f"{judge} cannot be read as UTF-8 text: {error}") from error


class Rubric:
    """A loaded rubric. `hash` covers all of it, `template_hash` what a language model is told."""

    def __init__(self, source: RubricSource):
        file = source.file
        self.name = file.name
        self._facts = frozenset(file.facts)
        self._words = tables(file)
        self._criteria = [_Compiled(criterion, str(source.path), file.variables) for criterion in file.criteria]
        self._judge = Template(source.judge, where=source.judge_path.name, variables=JUDGE_VARIABLES)
        self.template_hash = self._judge.hash
        self.hash = hashlib.sha256((dump_recipe(file) + source.judge).encode()).hexdigest()

    @classmethod
    def load(cls, name: str) -> "Rubric":
        """A rubric by name (one of `rubrics/`) or by path.

        Raises RecipeProblem or TemplateProblem that names file, criterion and fix.
        """
        return cls(read_rubric(name))

    def criteria(self, prompt: str, facts: Mapping[str, Any]) -> tuple[Criterion, ...]:
        """The criteria of one prompt. Raises where a fact is missing or two names are equal."""
        values = {"prompt": prompt, **self._words, **facts}
        try:
            found = tuple(one.render(values) for one in self._applying(values))
        except TemplateProblem as problem:
            raise TemplateProblem(f"{problem}{self._what_to_do(str(problem))}") from problem
        if problem := problem_of(found):
            raise RecipeProblem(f"rubric {self.name}, criteria of prompt {prompt!r}: {problem} or narrow its `when`")
        return found

    @property
    def size(self) -> int:
        """Criteria of a prompt that comes without facts; all there are, where they cannot do without."""
        try:
            return len(self.criteria("", {}))
        except (RecipeProblem, TemplateProblem):
            return len(self._criteria)

    def messages(self, prompt: str, criterion: Criterion) -> tuple[str, str]:
        """System and user text for a judge that is a language model."""
        about = {"name": criterion.name, "text": criterion.text}
        system = self._judge.render(part="system", prompt=prompt, criterion=about).strip()
        user = self._judge.render(part="user", prompt=prompt, criterion=about).strip()
        if not system or not user:
            empty = "user" if system else "system"
            raise RecipeProblem(f"rubric {self.name}: the judge template renders no text for part {empty!r}")
        return system, user

    def _applying(self, values: Mapping[str, Any]) -> list["_Compiled"]:
        """The criteria whose own condition holds, and whose parent's does."""
        applies: dict[str, bool] = {}

        def named(name: str) -> bool:
            if name not in applies:
                applies[name] = any(of(one) for one in self._criteria if one.name == name)
            return applies[name]

        def of(one: "_Compiled") -> bool:
            return (one.requires is None or named(one.requires)) and one.holds(values)

        return [one for one in self._criteria if of(one)]

    def _what_to_do(self, problem: str) -> str:
        """About a fact that a template asked for in vain."""
        asked = re.search(r"'(\w+)' is undefined", problem)
        if asked is None or asked[1] not in self._facts:
            return ""
        fix = f"`when: {asked[1]} is defined`"
        return f"; the prompt has no fact {asked[1]}: give it one, or let the criterion wait with {fix}"


class _Compiled:
    """A criterion with its templates parsed."""

    def __init__(self, source: CriterionTemplate, where: str, known: frozenset[str]):
        place = f"{where}, criterion {source.name!r}"
        self._source = source
        self.name, self.requires = source.name, source.requires
        self._text = Template(source.text, where=f"{place}, text", variables=known)
        self._check = None if source.check is None else compiled_check(source.check, f"{place}, check", known)
        self._when = Condition(source.when, where=f"{place}, when", variables=known) if source.when else None

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether its own `when` does."""
        return self._when is None or self._when(**values)

    def render(self, values: Mapping[str, Any]) -> Criterion:
        source = self._source
        check = None if self._check is None else self._check(values)
        text = self._text.render(**values).strip()
        return Criterion(source.name, text, source.kind, check, source.weight, source.requires)


def compiled_check(
    check: Mapping[str, Any], where: str, known: frozenset[str]
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A check whose texts are templates, ready to be rendered with values."""
    templates = _compile(dict(check), where, known)
    return lambda values: _rendered(templates, values)


class _Words(dict[str, str]):
    """A table that takes a number for its text."""

    def __getitem__(self, key: Fact) -> str:
        return super().__getitem__(str(key))


def tables(file: RubricFile) -> dict[str, Mapping[str, str]]:
    """The words of a rubric as its templates see them: `number[2]` and `number['2']` are the same."""
    return {name: _Words(table) for name, table in file.words.items()}


def _compile(value: Any, where: str, known: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _compile(inner, f"{where}.{key}", known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_compile(inner, where, known) for inner in value]
    return Template(value, where=where, variables=known) if isinstance(value, str) else value


def _rendered(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _rendered(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rendered(inner, values) for inner in value]
    if not isinstance(value, Template):
        return value
    text = value.render(**values).strip()
    return int(text) if text.lstrip("-").isdigit() else text
