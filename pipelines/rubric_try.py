"""`lens-rl rubric try`: a rubric put to pictures, with any judge. What it would cost is said before it is asked.

Verdicts are kept beside the pictures, so that a criterion that was not touched is never paid for twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem, recipe_of
from lens_core.records import Prompt, Verdict
from lens_rl.judges import open_backend
from lens_rl.judges.backend import Backend, Question, Usage
from lens_rl.judges.judge import RubricJudge, refuse_unreadable
from lens_rl.judges.prices import price_of, worst_cost_of
from lens_rl.judges.store import Asked, VerdictStore, image_sha
from lens_rl.recipe import Judge
from lens_rl.rewards import mean_of_valid, settled
from pipelines.generate import parameters_of
from rubrics.rubric import Fact, Rubric
from taxonomy.prompt_set import load_prompts

STORE = "verdicts.sqlite"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
FREE_BELOW_USD = 0.10
"""A judge that may cost more, or whose price nobody knows, is asked only with --yes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's file and the prompt that it was made from; its criteria are not there yet."""

    file: Path
    prompt: Prompt

    def pixels(self) -> np.ndarray:
        """uint8 RGB, (height, width, 3). Raises RecipeProblem for a file that is no picture."""
        with _readable(self.file), Image.open(self.file) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True, slots=True)
class Judged:
    """A picture's verdicts under one rubric, and its reward; None where the judge gave too few."""

    file: str
    prompt: Prompt
    verdicts: tuple[Verdict, ...]
    reward: float | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What judging would take at most. `usd` is None where nobody knows the price."""

    pictures: int
    verdicts: int
    stored: int
    requests: int
    tokens: int
    usd: float | None

    def __str__(self) -> str:
        if not self.requests:
            return f"{self.verdicts} verdicts on {self.pictures} pictures, all of them stored: nothing to ask"
        price = "at an unknown price" if self.usd is None else f"at most ${self.usd:.2f}" if self.usd else "free"
        tokens = f", at most {self.tokens:,} tokens" if self.tokens else ""
        return (
            f"{self.verdicts} verdicts on {self.pictures} pictures, {self.stored} of them stored: "
            f"{self.requests} requests{tokens}, {price}"
        )


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecipeProblem(f"{file} cannot be read as a picture: mend it, or move it out of the folder") from error


def judge_of(overrides: Sequence[str]) -> Judge:
    """The `judge` section that --judge FIELD=VALUE stand for; the embedded judge where none is given."""
    return recipe_of(Judge, overrides or ["backend=shapes"], "--judge")


def facts_given(facts: Sequence[str]) -> dict[str, Fact]:
    """`name=value` facts, for all pictures alike; digits are a number."""
    pairs = [fact.partition("=") for fact in facts]
    if wrong := next(("".join(pair) for pair in pairs if not pair[0].strip() or not pair[1]), None):
        raise RecipeProblem(f"--fact {wrong}: write it as name=value, for example --fact colour=red")
    return {name.strip(): int(value) if value.lstrip("-").isdigit() else value for name, _, value in pairs}


def pictures_in(folder: Path, prompts: Path | None, facts: Mapping[str, Fact]) -> list[Picture]:
    """The pictures of a folder with their prompts, by name; `facts` are added to those of every prompt.

    A prompt is told by `lens-rl generate` in the file, or by a prompt file: by that text, or an id that is the
    picture's name. Raises RecipeProblem for a picture that no prompt can be found for.
    """
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in PICTURES)
    files = [file for file in files if file.stem != "contact-sheet"]
    if not files:
        raise RecipeProblem(f"--images {folder}: there are no pictures ({', '.join(PICTURES)}) in it")
    known = load_prompts(prompts) if prompts else []
    by_text = {prompt.text: prompt for prompt in known}
    by_id = {prompt.id: prompt for prompt in known}
    return [Picture(file, _with_facts(_prompt_of(file, by_text, by_id), facts)) for file in files]


def _prompt_of(file: Path, by_text: Mapping[str, Prompt], by_id: Mapping[str, Prompt]) -> Prompt:
    with _readable(file):
        text = parameters_of(file).get("prompt")
    if text is not None:
        return by_text.get(text, Prompt(id=file.stem, text=text))
    if file.stem in by_id:
        return by_id[file.stem]
    raise RecipeProblem(
        f"{file}: which prompt was it made from? Give --prompts FILE with a line whose id is {file.stem!r}; "
        "pictures of `lens-rl generate` say it themselves"
    )


def _with_facts(prompt: Prompt, facts: Mapping[str, Fact]) -> Prompt:
    return Prompt(prompt.id, prompt.text, prompt.category, prompt.dimensions, (), {**prompt.facts, **facts})


class Trial:
    """One rubric, one judge, one folder's store. `with Trial(...) as trial: trial.estimate(); trial.judge()`."""

    def __init__(self, rubric: str, pictures: Sequence[Picture], judge: Judge, store: Path):
        self._rubric = Rubric.load(rubric)
        self._pictures = [(picture, self._with_criteria(picture.prompt)) for picture in pictures]
        self._backend: Backend = open_backend(judge)
        refuse_unreadable(self._backend, [prompt for _, prompt in self._pictures])
        self._store = VerdictStore(store)
        self._price = judge.price
        self._judge = RubricJudge(
            self._backend,
            self._rubric,
            self._store,
            concurrency=judge.concurrency,
            budget_usd=judge.budget_usd,
            price=judge.price,
        )

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, *_: object) -> None:
        self._judge.close()

    def estimate(self) -> Estimate:
        """What asking for the verdicts that are not stored can take at most."""
        size = self._backend.capabilities.questions_per_request
        verdicts = stored = requests = 0
        worst = Usage()
        for picture, prompt in self._pictures:
            pixels = picture.pixels()
            questions = [Question(one, *self._rubric.messages(prompt.text, one)) for one in prompt.criteria]
            known = self._store.find(image_sha(pixels), self._judge.judge_id, [Asked.of(one) for one in questions])
            missing = [question for question, verdict in zip(questions, known, strict=True) if verdict is None]
            prepared = self._backend.prepare(pixels) if missing else None
            parts = [missing[start : start + size] for start in range(0, len(missing), size)]
            verdicts += len(questions)
            stored += len(questions) - len(missing)
            requests += len(parts)
            worst = sum((self._backend.worst_case(prepared, part) for part in parts), worst)
        price = price_of(self._backend.model, self._price)
        usd = 0.0 if not requests else None if price is None else worst_cost_of(worst, price)
        return Estimate(len(self._pictures), verdicts, stored, requests, worst.tokens, usd)

    def judge(self, min_coverage: float = 0.0) -> list[Judged]:
        """The verdicts on every picture, stored ones first, in the order of the pictures."""
        futures = [(p, prompt, self._judge.submit(prompt, p.pixels())) for p, prompt in self._pictures]
        judged = []
        with ProgressDisplay("pictures judged", len(futures)) as bar:
            for done, (picture, prompt, future) in enumerate(futures, start=1):
                verdicts = future.result()
                judged.append(Judged(picture.file.name, prompt, verdicts, reward_of(prompt, verdicts, min_coverage)))
                bar.update(done, picture.file.name)
        return judged

    def _with_criteria(self, prompt: Prompt) -> Prompt:
        criteria = self._rubric.criteria(prompt.text, prompt.facts)
        return Prompt(prompt.id, prompt.text, prompt.category, prompt.dimensions, criteria, prompt.facts)


def reward_of(prompt: Prompt, verdicts: Sequence[Verdict], min_coverage: float = 0.0) -> float | None:
    """The reward of a picture as a run with this rubric alone would give it."""
    values = settled(prompt.criteria, [verdict.value for verdict in verdicts])
    return mean_of_valid(values, [criterion.weight for criterion in prompt.criteria], min_coverage)


def agree_to(estimate: Estimate, *, yes: bool, console: Console) -> None:
    """Say what it will cost. Raises RecipeProblem where that is unknown or more than a trifle, and nobody said yes."""
    console.print(str(estimate), highlight=False, soft_wrap=True)
    trifle = estimate.usd is not None and estimate.usd <= FREE_BELOW_USD
    if estimate.requests and not trifle and not yes:
        raise RecipeProblem("nothing was asked yet: add --yes to go ahead")


def tables(judged: Sequence[Judged]) -> tuple[Table, Table]:
    """Picture by picture, and criterion by criterion."""
    pictures = Table(title="Pictures", title_justify="left")
    pictures.add_column("picture", overflow="fold")
    pictures.add_column("reward", justify="right")
    pictures.add_column("fails")
    pictures.add_column("errors")
    for one in judged:
        fails = [verdict.criterion for verdict in one.verdicts if verdict.value == 0]
        errors = [f"{verdict.criterion} ({verdict.status})" for verdict in one.verdicts if verdict.value is None]
        reward = "-" if one.reward is None else f"{one.reward:.3f}"
        pictures.add_row(one.file, reward, ", ".join(fails), ", ".join(errors))
    criteria = Table(title="Criteria", title_justify="left")
    for column, justify in (
        ("criterion", "left"),
        ("kind", "left"),
        ("yes", "right"),
        ("no", "right"),
        ("errors", "right"),
    ):
        criteria.add_column(column, justify=justify)  # type: ignore[arg-type]
    for (name, kind), counts in tally(judged).items():
        criteria.add_row(name, kind, *(str(counts[value]) for value in (1, 0, None)))
    return pictures, criteria


def tally(judged: Sequence[Judged]) -> dict[tuple[str, str], dict[int | None, int]]:
    """(criterion, kind) -> how many verdicts were 1, 0 and None."""
    counts: dict[tuple[str, str], dict[int | None, int]] = {}
    for one in judged:
        for criterion, verdict in zip(one.prompt.criteria, one.verdicts, strict=True):
            row = counts.setdefault((criterion.name, criterion.kind), {1: 0, 0: 0, None: 0})
            row[verdict.value] += 1
    return counts


def plain(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """For --json."""
    return [
        {
            "picture": one.file,
            "prompt": one.prompt.text,
            "reward": one.reward,
            "verdicts": [
                {
                    "criterion": criterion.name, "kind": criterion.kind, "text": criterion.text,
                    "value": verdict.value, "status": verdict.status, "p": verdict.p,
                }
                for criterion, verdict in zip(one.prompt.criteria, one.verdicts, strict=True)
            ],
        }
        for one in judged
    ]  # fmt: skip
