"""What is wrong with a rubric, found before a judge is paid to find it out.

`lint` reads the files, then renders every criterion over samples of facts and looks at what the judge would read.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens_core.recipes import RecipeProblem, field_lines, find_recipe
from lens_core.templates import Condition, Outside, Template, TemplateProblem, UnknownVariable
from rubrics.lint_judge import judge_faults
from rubrics.rubric import RUBRICS, CriterionTemplate, RubricSource, read_rubric
from rubrics.samples import Sample, samples_of, without_facts
from rubrics.statements import Fault
from rubrics.trial import Trial

LONGEST_NAME = 60


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One mistake: where it stands, what it is, and what to do."""

    file: str
    line: int
    code: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}: {self.message}; {self.fix}"


def lint(name: str, samples: Sequence[Sample] = ()) -> list[Finding]:
    """The findings on a rubric, by name or path, in the order of its lines; none where all is well.

    `samples` are prompts with facts as a run would bring them; without, the rubric's own examples are combined.
    Raises RecipeProblem only where there is no such file.
    """
    find_recipe(name, RUBRICS, what="rubric")
    try:
        source = read_rubric(name)
    except RecipeProblem as problem:
        return sorted(_of_a_file(name, str(problem)))
    return sorted(set(_Linter(source, samples).findings()))


class _Linter:
    """Goes through one rubric; each method yields what it finds."""

    def __init__(self, source: RubricSource, samples: Sequence[Sample]):
        self._source, self._file = source, source.file
        self._lines = field_lines(source.path)
        self._given = list(samples)
        self._broken: set[int] = set()
        self._asked: set[str] = set()

    def findings(self) -> Iterator[Finding]:
        for fault, line in judge_faults(self._source.judge, self._source.judge_path.name):
            yield self._finding(fault, line, self._source.judge_path)
        for index, criterion in enumerate(self._file.criteria):
            yield from self._compiles(index, criterion)
            yield from self._names(index, criterion)
        yield from self._unused()
        yield from self._kinds()
        yield from self._over_samples()

    def _finding(self, fault: Fault, line: int, path: Path | None = None) -> Finding:
        return Finding(str(path or self._source.path), line, fault.code, fault.message, fault.fix)

    def _at(self, index: int, *fields: str) -> int:
        """The line of a criterion's field, or of the criterion where it has none of these."""
        keys = next((k for f in fields if (k := ("criteria", index, f)) in self._lines), ("criteria", index))
        return self._lines.get(keys, 1)

    def _compiles(self, index: int, criterion: CriterionTemplate) -> Iterator[Finding]:
        """Each template of a criterion by itself, so that one mistake does not hide the next."""
        known = self._file.variables
        for field, build in _templates_of(criterion, known):
            try:
                self._asked |= build().asks_for
            except TemplateProblem as problem:
                self._broken.add(index)
                yield self._finding(_of_a_template(criterion, field, problem), self._at(index, field.split(".")[0]))
        if criterion.when and index not in self._broken and not Condition(criterion.when, where="").asks_for:
            fix = "ask for a fact, or take `when` out"
            yield self._finding(
                Fault("constant-when", f"`when` of {criterion.name!r} asks for no fact", fix), self._at(index, "when")
            )

    def _names(self, index: int, criterion: CriterionTemplate) -> Iterator[Finding]:
        line = self._at(index, "name")
        name = criterion.name
        if not name.strip() or name != name.strip() or len(name) > LONGEST_NAME or re.search(r"[\n{}\"]", name):
            fix = f"a name is up to {LONGEST_NAME} plain characters; it is no template"
            yield self._finding(Fault("name", f"{name!r} does not read well in a table", fix), line)
        if re.search(r"\{\{-?\s*prompt\s*-?\}\}", criterion.text):
            fix = "the judge sees the prompt anyway: leave it out, or write {{ prompt | tojson }}"
            message = f"the text of {name!r} takes in the prompt bare, where it could pass for part of the statement"
            yield self._finding(Fault("bare-prompt", message, fix), self._at(index, "text"))
        if criterion.check is not None and not criterion.check.get("kind"):
            fix = "write check: {kind: ...}, which tells a program how to read the rest"
            yield self._finding(
                Fault("check-kind", f"the check of {name!r} has no kind", fix), self._at(index, "check")
            )

    def _unused(self) -> Iterator[Finding]:
        if self._broken:
            return  # what a broken template asks for is not known
        for field, names in (("facts", self._file.facts), ("words", self._file.words)):
            for name in sorted(set(names) - self._asked):
                line = self._lines.get((field, name), self._lines.get((field,), 1))
                message = f"nothing asks for {name!r}, which stands under {field}"
                yield self._finding(Fault("unused", message, "use it in a criterion, or take it out"), line)

    def _kinds(self) -> Iterator[Finding]:
        first: dict[str, str] = {}
        for index, criterion in enumerate(self._file.criteria):
            plain = re.sub(r"[\W_]+", " ", criterion.kind.lower()).strip().removesuffix("s").replace("color", "colour")
            if not plain or first.setdefault(plain, criterion.kind) != criterion.kind:
                message = f"kind {criterion.kind!r} stands beside {first.get(plain, '')!r}"
                fix = "tables group criteria by kind: write it in one way"
                yield self._finding(Fault("kind", message, fix), self._at(index, "kind"))

    def _over_samples(self) -> Iterator[Finding]:
        """What shows only in what the judge would read."""
        without = sorted(name for name, values in self._file.facts.items() if not values)
        if without and not self._given:
            message = f"{', '.join(without)}: no values to try the criteria on"
            fix = f"give examples, as in `facts: {{{without[0]}: [some, values]}}`, or name their tree with --on"
            yield self._finding(Fault("no-values", message, fix), self._lines.get(("facts",), 1))
            return
        trial = Trial(self._file, self._broken)
        for sample in [*(self._given or samples_of(self._file)), *without_facts(self._file)]:
            trial.run(sample)
        for fault, index, field in trial.faults():
            yield self._finding(fault, self._at(index, field, "text") if index is not None else 1)


def _templates_of(
    criterion: CriterionTemplate, known: frozenset[str]
) -> Iterator[tuple[str, Callable[[], Template | Condition]]]:
    """Each template of a criterion: its field, and a function that compiles it."""
    yield "text", lambda: Template(criterion.text, where="text", variables=known)
    if criterion.when:
        yield "when", lambda: Condition(criterion.when or "", where="when", variables=known)
    for place, text in _texts_within(criterion.check or {}, "check"):
        yield place, lambda text=text, place=place: Template(text, where=place, variables=known)


def _texts_within(value: Any, place: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts_within(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_within(inner, place)
    elif isinstance(value, str):
        yield place, value


def _of_a_template(criterion: CriterionTemplate, field: str, problem: TemplateProblem) -> Fault:
    message = f"{criterion.name!r}, {problem}"
    if isinstance(problem, UnknownVariable):
        return Fault("unknown-variable", message, "list it under facts, or write a name that is there")
    if isinstance(problem, Outside):
        return Fault("sandbox", message, "templates of rubrics only fill in, decide and repeat")
    return Fault("template", message, f"mend the template in {field}")


def _of_a_file(name: str, problem: str) -> Iterator[Finding]:
    """A file that cannot be read as a rubric: its problems, with the lines that they name."""
    if "is not a YAML recipe" in problem:
        lines = re.findall(r"line (\d+)", problem)
        message = " ".join(problem.replace('in "<unicode string>", ', "").split())
        yield Finding(name, int(lines[-1]) if lines else 1, "field", message, "mend the YAML there")
        return
    for line in problem.splitlines():
        found = re.match(r"(?P<file>[^:]+):(?P<line>\d+): (?P<message>.*)", line)
        file, number, message = (found["file"], int(found["line"]), found["message"]) if found else (name, 1, line)
        message = message.removeprefix(f"{name}: ").removeprefix("recipe: ")
        code = "requires" if "requires" in message else "judge-missing" if "no template" in message else "field"
        yield Finding(file, number, code, message, "see docs/write-a-rubric.md for the fields of a rubric")
