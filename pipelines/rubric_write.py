"""`lens-rl rubric write`: criteria for a file of prompts, written once by a language model, before any run.

What is written is kept at once in FILE.part, finished or not, so that a command that was stopped, or a model that
gave out, costs nothing twice: the same command goes on.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lens_core.asking import AskModel, ModelProblem
from lens_core.progress import ProgressDisplay
from lens_core.records import Criterion, Prompt
from lens_core.runs import write_whole
from rubrics.rubric import Rubric
from rubrics.writer import CriteriaWriter, Unfinished
from taxonomy.prompt_set import load_prompts, write_prompts

GLOBAL_KIND = "structure"
"""The kind of the criteria about a picture as a whole, which are added to the written ones."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a command did; `kept` prompts had criteria of their own."""

    prompts: int
    kept: int
    set_hash: str


OpenModel = AbstractAsyncContextManager[AskModel]


def write(source: Path, out: Path, model: OpenModel, *, rubric: str = "lens", at_once: int = 8) -> Written:
    """Write criteria for the prompts of `source` that have none, into the prompt file `out`.

    The criteria of the rubric that are about the picture as a whole come last. Raises ModelProblem where prompts are
    left without; what was written stays in FILE.part and the same command goes on from there.
    """
    prompts = load_prompts(source)
    journal = _Journal(out.with_name(f"{out.name}.part"))
    whole = Rubric.load(rubric)
    always = {
        prompt.id: [one for one in whole.criteria(prompt.text, prompt.facts) if one.kind == GLOBAL_KIND]
        for prompt in prompts
        if not prompt.criteria
    }
    problems = asyncio.run(_write_all(prompts, model, always, journal, at_once))
    if problems:
        raise ModelProblem(
            f"{len(problems)} of {len(prompts)} prompts are still without criteria; the same command goes on with "
            f"them, nothing that was written is lost ({journal.path}). The first: {problems[0]}"
        )
    finished = [replace(one, criteria=(*journal.criteria(one.id), *always[one.id])) if one.id in always else one
                for one in prompts]  # fmt: skip
    digest = write_prompts(out, finished)
    journal.path.unlink(missing_ok=True)
    return Written(len(prompts), len(prompts) - len(always), digest)


async def _write_all(
    prompts: Sequence[Prompt],
    model: OpenModel,
    always: dict[str, list[Criterion]],
    journal: "_Journal",
    at_once: int,
) -> list[str]:
    """Ask for every prompt that is not done, some at once; returns what went wrong."""
    slots = asyncio.Semaphore(at_once)
    problems = []
    missing = [prompt for prompt in prompts if prompt.id in always and not journal.done(prompt.id)]
    async with model as opened:
        tasks = [_write_one(prompt, CriteriaWriter(opened), always[prompt.id], journal, slots) for prompt in missing]
        with ProgressDisplay("prompts", len(missing)) as bar:
            for done, task in enumerate(asyncio.as_completed(tasks), start=1):
                if problem := await task:
                    problems.append(problem)
                bar.update(done, f"{len(problems)} without criteria" if problems else "")
    return problems


async def _write_one(
    prompt: Prompt, writer: CriteriaWriter, always: list[Criterion], journal: "_Journal", slots: asyncio.Semaphore
) -> str | None:
    """Criteria of one prompt, into the journal; what went wrong, or None."""
    async with slots:
        try:
            criteria = await writer.write(prompt.text, always, journal.criteria(prompt.id))
        except Unfinished as problem:
            journal.add(prompt.id, problem.criteria, done=False)
            return str(problem)
        except ModelProblem as problem:
            return str(problem)
        journal.add(prompt.id, criteria[: len(criteria) - len(always)], done=True)
    return None


class _Journal:
    """What was written so far, a line a prompt; the last line of a prompt counts, a torn line at the end does not."""

    def __init__(self, path: Path):
        self.path = path
        self._lines: dict[str, dict[str, Any]] = {}
        if path.exists():
            *whole, torn = path.read_text(encoding="utf-8").split("\n")
            if torn:
                write_whole(path, "".join(f"{line}\n" for line in whole))
            for entry in map(json.loads, whole):
                self._lines[entry["id"]] = entry

    def done(self, prompt_id: str) -> bool:
        return self._lines.get(prompt_id, {"done": False})["done"]

    def criteria(self, prompt_id: str) -> list[Criterion]:
        entry = self._lines.get(prompt_id, {"criteria": []})
        return [Criterion(name, text, kind) for name, text, kind in entry["criteria"]]

    def add(self, prompt_id: str, criteria: Sequence[Criterion], *, done: bool) -> None:
        rows = [[one.name, one.text, one.kind] for one in criteria]
        entry = {"id": prompt_id, "done": done, "criteria": rows}
        self._lines[prompt_id] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
