"""What is wrong with the template that a language model is asked with."""

import json
import re
from collections.abc import Iterator

from lens_core.branches import BranchWatch
from lens_core.templates import Outside, TemplateProblem, UnknownVariable
from rubrics.rubric import JUDGE_VARIABLES
from rubrics.statements import Fault

LONGEST = 6000
_PROMPTS = ('a "red"\nball zqx', "two cats vkw")
_CRITERIA = ({"name": "Name jqz", "text": "Statement wvx."}, {"name": "Other kqy", "text": "Another pzj."})


def judge_faults(source: str, where: str) -> Iterator[tuple[Fault, int]]:
    """Faults of a judge template, each with its line in that file."""
    try:
        watch = BranchWatch(source, where=where)
        if unknown := sorted(watch.template.asks_for - JUDGE_VARIABLES):
            known = ", ".join(sorted(JUDGE_VARIABLES))
            raise UnknownVariable(f"unknown variable {', '.join(unknown)}; known here: {known}")
        said = {
            (part, i, j): watch.render(part=part, prompt=prompt, criterion=criterion).strip()
            for part in ("system", "user")
            for i, prompt in enumerate(_PROMPTS)
            for j, criterion in enumerate(_CRITERIA)
        }
    except TemplateProblem as problem:
        yield _of_a_template(problem), _line_in(str(problem), source)
        return
    for fault in _faults_of_texts(said):
        yield fault, 1
    for branch in watch.unreached():
        message = f"{branch.what} is reached for no part"
        yield Fault("dead-branch", message, 'parts are "system" and "user"'), branch.line


def _of_a_template(problem: TemplateProblem) -> Fault:
    if isinstance(problem, UnknownVariable):
        return Fault("unknown-variable", str(problem), "write a name that is there")
    if isinstance(problem, Outside):
        return Fault("sandbox", str(problem), "templates only fill in, decide and repeat")
    return Fault("template", str(problem), "mend the template")


def _faults_of_texts(said: dict[tuple[str, int, int], str]) -> Iterator[Fault]:
    system, user = said["system", 0, 0], said["user", 0, 0]
    for part, text in (("system", system), ("user", user)):
        if not text:
            yield Fault("judge-empty", f"part {part!r} has no text", f'write something for part == "{part}"')
    if "zqx" not in system + user:
        yield Fault("judge-prompt", "the prompt of the picture is never told", "add {{ prompt | tojson }}")
    elif json.dumps(_PROMPTS[0], ensure_ascii=False) not in system + user:
        message = "the prompt is told bare, where it could pass for an instruction to the judge"
        yield Fault("judge-quotes", message, "write {{ prompt | tojson }}")
    if "wvx" not in system + user:
        yield Fault("judge-criterion", "the criterion's statement is never told", "add {{ criterion.text }}")
    if len({text for (part, _, _), text in said.items() if part == "system"}) > 1:
        message = "part 'system' changes with the prompt or the criterion, so that no judge can keep it ready"
        yield Fault("judge-system", message, 'tell both in part "user"')
    if not (re.search(r"\b1\b", system + user) and re.search(r"\b0\b", system + user)):
        yield Fault("judge-answer", "the answers 1 and 0 are not both explained", "say when to reply 1 and when 0")
    if len(system) + len(user) > LONGEST:
        message = f"a message has {len(system) + len(user):,} characters, sent for every criterion of every picture"
        yield Fault("judge-long", message, f"stay below {LONGEST:,}")


def _line_in(problem: str, source: str) -> int:
    """The line that a message names, or that of the first unknown variable it names."""
    if found := re.search(r"line (\d+)", problem):
        return int(found[1])
    word = re.search(r"unknown variable (\w+)", problem)
    before = source.partition(word[1])[0] if word else ""
    return 1 + before.count("\n")
