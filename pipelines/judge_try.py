"""`lens-rl judge try`: one picture, one judge, and exactly what was sent."""

import re
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion, Prompt, Verdict
from lens_rl.judges import open_backend, open_judge
from lens_rl.judges.backend import Question
from lens_rl.judges.judge import refuse_unreadable
from pipelines.judge_sources import named_judge, read_image
from rubrics.rubric import Rubric

SHORT = 24
"""Characters of a picture's data URL that are printed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The bodies of the requests, none where the judge sends nothing, and a verdict a criterion."""

    requests: tuple[dict[str, Any], ...]
    prompt: Prompt
    verdicts: tuple[Verdict, ...]


def try_judge(
    judge: str, image: Path, prompt: str, criteria: Sequence[str], checks: Sequence[str], rubric: str
) -> Trial:
    """Ask a judge about one picture; without criteria of its own, about those that the rubric gives to every prompt.

    Nothing is read from a store or kept in one. Raises RecipeProblem and JudgeProblem.
    """
    section, loaded, pixels = named_judge(judge), Rubric.load(rubric), read_image(image)
    asked = Prompt("try", prompt, criteria=_criteria(criteria, checks) or loaded.criteria(prompt, {}))
    backend = open_backend(section)
    refuse_unreadable(backend, [asked])
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_judge(section, backend, loaded, Path(folder) / "verdicts.sqlite")) as opened,
    ):
        verdicts = opened.submit(asked, pixels).result()
        questions = [Question(criterion, *loaded.messages(prompt, criterion)) for criterion in asked.criteria]
        size, picture = backend.capabilities.questions_per_request, backend.prepare(pixels)
        parts = [questions[start : start + size] for start in range(0, len(questions), size)]
        bodies = [backend.request(picture, part) for part in parts]
    return Trial(tuple(dict(body) for body in bodies if body is not None), asked, verdicts)


def _criteria(texts: Sequence[str], checks: Sequence[str]) -> tuple[Criterion, ...]:
    if checks and len(checks) != len(texts):
        raise RecipeProblem("--check: give as many as --criterion, in the same order, or none")
    read = [yaml.safe_load(check) for check in checks] or [None] * len(texts)
    if bad := next((check for check in read if not isinstance(check, dict | None)), None):
        raise RecipeProblem(f"--check {bad}: write a mapping, for example '{{kind: present, of: red circle}}'")
    names = [f"criterion {number}" for number, _ in enumerate(texts, start=1)] if len(texts) > 1 else ["criterion"]
    return tuple(Criterion(name, text, "custom", check) for name, text, check in zip(names, texts, read, strict=False))


def as_json(trial: Trial) -> dict[str, Any]:
    """Bodies in full, pictures included."""
    return {"requests": list(trial.requests), "verdicts": [asdict(verdict) for verdict in trial.verdicts]}


def print_trial(trial: Trial, console: Console) -> None:
    for number, body in enumerate(trial.requests, start=1):
        count = f" {number} of {len(trial.requests)}" if len(trial.requests) > 1 else ""
        console.print(Rule(f"request{count}", align="left"))
        console.print(_readable(body), markup=False, highlight=False, soft_wrap=True)
    if not trial.requests:
        console.print("Nothing was sent: this judge looks at the picture itself.", highlight=False)
    table = Table()
    for column in ("criterion", "verdict", "p", "label mass", "seconds", "tokens", "cost $"):
        table.add_column(column, justify="left" if column == "criterion" else "right")
    for criterion, verdict in zip(trial.prompt.criteria, trial.verdicts, strict=True):
        table.add_row(
            criterion.text,
            verdict.status if verdict.value is None else str(verdict.value),
            *("\u2013" if value is None else f"{value:.3f}" for value in (verdict.p, verdict.mass, verdict.latency)),
            f"{verdict.tokens}",
            "unknown" if verdict.cost is None else f"{verdict.cost:.6f}",
        )
    console.print(table)
    console.print(f"judge {trial.verdicts[0].judge_id}", highlight=False, soft_wrap=True)


class _Dumper(yaml.SafeDumper):
    """YAML with texts of several lines as blocks, which is how the model reads them."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _readable(body: dict[str, Any]) -> str:
    """A body as YAML, with the pictures in it cut short."""
    return yaml.dump(_shortened(body), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100).rstrip()


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(inner) for inner in value]
    if isinstance(value, str) and re.match(r"data:\w+/\w+;base64,", value):
        return f"{value[:SHORT]}... ({len(value):,} characters)"
    return value
