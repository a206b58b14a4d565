"""Rubric files: criteria as templates over a prompt's text and facts, and how a judge is asked about them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lens_core.recipes import RecipeProblem, Strict, dump_recipe, find_recipe, load_recipe
from lens_core.records import Criterion
from lens_core.templates import Condition, Template

RUBRICS = Path(__file__).parent


class CriterionTemplate(Strict):
    """One criterion, rendered for a prompt where `when` holds (or always)."""

    name: str
    kind: str
    text: str
    check: dict[str, Any] | None = None
    """The same statement for judges that are programs; its texts are templates too."""
    when: str | None = None


class RubricFile(Strict):
    """The fields of a rubric's YAML file."""

    name: str
    judge: str = "judge.j2"
    """Template of the messages to a language model; beside this file, or one that is shipped."""
    facts: tuple[str, ...] = ()
    """Facts that the criteria may ask for; a prompt need not have all of them."""
    words: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Named tables for the templates, such as number words."""
    criteria: Annotated[tuple[CriterionTemplate, ...], Field(min_length=1)]


class Rubric:
    """A loaded rubric. `hash` covers all of it, `template_hash` what a language model is told."""

    def __init__(self, file: RubricFile, judge_source: str, where: str):
        self.name = file.name
        known = {"prompt", *file.facts, *file.words}
        if len(known) < 1 + len(file.facts) + len(file.words):
            raise RecipeProblem(f"{where}: facts and words: a name is given twice, or is `prompt`: rename one of them")
        self._words = {name: _Words(table) for name, table in file.words.items()}
        self._criteria = [_Compiled(criterion, where, known) for criterion in file.criteria]
        self.size = len(file.criteria)
        self._judge = Template(judge_source, where=file.judge, variables={"part", "prompt", "criterion"})
        self.template_hash = self._judge.hash
        self.hash = hashlib.sha256((dump_recipe(file) + judge_source).encode()).hexdigest()

    @classmethod
    def load(cls, name: str) -> "Rubric":
        """A rubric by name (one of `rubrics/`) or by path.

        Raises RecipeProblem or TemplateProblem that names file, criterion and fix.
        """
        path = find_recipe(name, RUBRICS, what="rubric")
        file = load_recipe(RubricFile, path)
        for folder in (path.parent, RUBRICS):
            if (folder / file.judge).is_file():
                return cls(file, (folder / file.judge).read_text(encoding="utf-8"), str(path))
        raise RecipeProblem(f"{path}: judge: there is no template {file.judge} beside it nor among the shipped ones")

    def criteria(self, prompt: str, facts: Mapping[str, Any]) -> tuple[Criterion, ...]:
        """The criteria of one prompt. Raises where a fact is missing or two names are equal."""
        values = {"prompt": prompt, **self._words, **facts}
        found = tuple(c.render(values) for c in self._criteria if c.applies(values))
        names = [criterion.name for criterion in found]
        if doubled := next((name for name in names if names.count(name) > 1), None):
            raise RecipeProblem(
                f"rubric {self.name}: two criteria of prompt {prompt!r} are named {doubled!r}; "
                "verdicts are kept by name, so rename one or narrow its `when`"
            )
        return found

    def messages(self, prompt: str, criterion: Criterion) -> tuple[str, str]:
        """System and user text for a judge that is a language model."""
        about = {"name": criterion.name, "text": criterion.text}
        system = self._judge.render(part="system", prompt=prompt, criterion=about).strip()
        user = self._judge.render(part="user", prompt=prompt, criterion=about).strip()
        if not system or not user:
            empty = "user" if system else "system"
            raise RecipeProblem(f"rubric {self.name}: the judge template renders no text for part {empty!r}")
        return system, user


class _Compiled:
    """A criterion with its templates parsed."""

    def __init__(self, source: CriterionTemplate, where: str, known: set[str]):
        place = f"{where}, criterion {source.name!r}"
        self._source = source
        self._text = Template(source.text, where=f"{place}, text", variables=known)
        self._check = None if source.check is None else _compile(source.check, f"{place}, check", known)
        self._when: Condition | None = None
        if source.when:
            # A condition does not tell which variables it asks for; the template of the same expression does.
            Template(f"{{{{ {source.when} }}}}", where=f"{place}, when", variables=known)
            self._when = Condition(source.when, where=f"{place}, when")

    def applies(self, values: Mapping[str, Any]) -> bool:
        return self._when is None or self._when(**values)

    def render(self, values: Mapping[str, Any]) -> Criterion:
        check = None if self._check is None else _rendered(self._check, values)
        return Criterion(self._source.name, self._text.render(**values).strip(), self._source.kind, check)


class _Words(dict[str, str]):
    """A table that takes a number for its text."""

    def __getitem__(self, key: str | int) -> str:
        return super().__getitem__(str(key))


def _compile(value: Any, where: str, known: set[str]) -> Any:
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
