"""A rubric tried on samples: what shows only in the texts that a judge would read."""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from lens_core.branches import BranchWatch
from lens_core.records import Criterion
from lens_core.templates import Condition, Outside, TemplateProblem
from rubrics.comparing import contradict, disagreement, same
from rubrics.rubric import RubricFile, compiled_check, tables
from rubrics.samples import Sample
from rubrics.statements import Fault, faults_of

MOST_CRITERIA = 25


class Trial:
    """Renders the sound criteria over samples and keeps each kind of fault once a criterion."""

    def __init__(self, file: RubricFile, broken: set[int]):
        self._words = tables(file)
        self._criteria = {index: one for index, one in enumerate(file.criteria) if index not in broken}
        self._complete = not broken
        self._texts = {i: BranchWatch(one.text, where="text") for i, one in self._criteria.items()}
        self._conditions = {i: Condition(one.when, where="when") for i, one in self._criteria.items() if one.when}
        self._checks = {
            i: compiled_check(one.check, "check", file.variables) for i, one in self._criteria.items() if one.check
        }
        self._applied: set[int] = set()
        self._seen: set[tuple[Any, ...]] = set()
        self._faults: dict[tuple[str, int | None], tuple[Fault, int | None, str]] = {}

    def run(self, sample: Sample) -> None:
        values = {"prompt": sample.prompt, **self._words, **sample.facts}
        rendered = {i: one for i in self._applying(values) if (one := self._rendered(i, values)) is not None}
        for index, criterion in rendered.items():
            if (index, criterion.text) not in self._seen:
                self._seen.add((index, criterion.text))
                self._look_at(index, criterion, sample.facts)
        for (i, one), (j, other) in combinations(rendered.items(), 2):
            if (i, j, one.text, other.text) not in self._seen:
                self._seen.add((i, j, one.text, other.text))
                self._compare(one, j, other)
        self._look_at_all(list(rendered.items()), sample)

    def faults(self) -> Iterator[tuple[Fault, int | None, str]]:
        for index, criterion in self._criteria.items():
            if index not in self._applied:
                message = f"{criterion.name!r} applies to no prompt: its `when`, or its parent's, never holds"
                self._keep(Fault("never", message, "mend the condition, or take the criterion out"), index, "when")
                continue
            for branch in self._texts[index].unreached():
                message = f"{criterion.name!r}: {branch.what} (line {branch.line} of the text) is never reached"
                self._keep(Fault("dead-branch", message, "no fact leads there: mend or delete it"), index, "text")
        yield from self._faults.values()

    def _keep(self, fault: Fault, index: int | None, field: str = "text") -> None:
        self._faults.setdefault((fault.code, index), (fault, index, field))

    def _applying(self, values: Mapping[str, Any]) -> list[int]:
        applies: dict[int, bool] = {}

        def of(index: int) -> bool:
            if index not in applies:
                parent = self._criteria[index].requires
                parents = [i for i, one in self._criteria.items() if one.name == parent]
                # A parent that does not compile is reported by itself, and stands in nobody's way.
                applies[index] = (not parents or any(map(of, parents))) and self._holds(index, values)
            return applies[index]

        found = [index for index in self._criteria if of(index)]
        self._applied.update(found)
        return found

    def _holds(self, index: int, values: Mapping[str, Any]) -> bool:
        condition = self._conditions.get(index)
        if condition is None:
            return True
        try:
            return condition(**values)
        except TemplateProblem as problem:
            self._keep_problem(problem, index, "when")
            self._applied.add(index)
            return False

    def _rendered(self, index: int, values: Mapping[str, Any]) -> Criterion | None:
        source = self._criteria[index]
        try:
            text = self._texts[index].render(**values).strip()
            check = self._checks[index](values) if index in self._checks else None
        except TemplateProblem as problem:
            self._keep_problem(problem, index, "text")
            return None
        return Criterion(source.name, text, source.kind, check, source.weight, source.requires)

    def _keep_problem(self, problem: TemplateProblem, index: int, field: str) -> None:
        name = self._criteria[index].name
        if isinstance(problem, Outside):
            self._keep(Fault("sandbox", f"{name!r}: {problem}", "write it in a simpler way"), index, field)
        elif "undefined" in str(problem) and "object" not in str(problem):
            fix = "let the criterion wait with `when: ... is defined`"
            self._keep(Fault("missing-fact", f"{name!r}: {problem} for some prompts", fix), index, field)
        else:
            self._keep(
                Fault("fails", f"{name!r}: {problem} for some facts", "mend the template or the words"), index, field
            )

    def _look_at(self, index: int, criterion: Criterion, facts: Mapping[str, Any]) -> None:
        for fault in faults_of(criterion.text, facts):
            message = f"{criterion.name!r}: {fault.message}"
            self._keep(Fault(fault.code, message, fault.fix), index)
        names = "|".join(map(re.escape, [*facts, "prompt"]))
        if left := re.search(rf"[{{<\[$](?:{names})\b", criterion.text):
            message = f"{criterion.name!r} has {left[0]!r} in what the judge reads"
            self._keep(Fault("braces", message, "a fact is written {{ so }}, with two braces"), index)
        if criterion.check and (message := disagreement(criterion.text, criterion.check)):
            fix = "let text and check say the same"
            self._keep(Fault("check-differs", f"{criterion.name!r}: {message}", fix), index, "check")

    def _compare(self, one: Criterion, j: int, other: Criterion) -> None:
        pair = f"{other.name!r} and {one.name!r}"
        if one.name == other.name:
            fix = "verdicts are kept by name: rename one, or let their `when` exclude each other"
            self._keep(Fault("doubled-name", f"two criteria of one prompt are named {one.name!r}", fix), j, "name")
        if same(one.text, other.text) or (one.check and one.check == other.check):
            fix = "every criterion says something new: take one out, or narrow its `when`"
            self._keep(Fault("doubled", f"{pair} say the same: {other.text!r}", fix), j)
        elif contradict(one.text, other.text):
            message = f"{pair} cannot both hold: {one.text!r} and {other.text!r}"
            self._keep(Fault("contradiction", message, "no picture gets full reward: mend one"), j)

    def _look_at_all(self, rendered: list[tuple[int, Criterion]], sample: Sample) -> None:
        if not rendered and self._complete:
            message = f"no criterion applies to a prompt with the facts {dict(sample.facts)}"
            self._keep(Fault("no-criteria", message, "add one without `when`"), None)
        if len(rendered) > MOST_CRITERIA:
            message = f"{len(rendered)} criteria for one prompt; each is asked of every picture"
            self._keep(Fault("too-many", message, f"keep the {MOST_CRITERIA} that tell most"), rendered[-1][0])
        total = sum(criterion.weight for _, criterion in rendered)
        for index, criterion in rendered:
            if len(rendered) > 2 and criterion.weight > total / 2:
                message = f"{criterion.name!r} weighs more than all other criteria of a prompt together"
                self._keep(Fault("heavy", message, "the others would hardly matter: lower its weight"), index, "weight")
