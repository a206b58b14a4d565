"""What rubrics cost on one core: `python -m benchmarks.rubrics`. No judge is asked.

The messages are those of a step of the paper, 48 prompts x 24 images x 10 criteria = 11,520; system and user text of
each are rendered by the sandbox, as a judge would get them. Bare Jinja renders the same texts without the sandbox.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import torch
import typer

from benchmarks.common import Json, Quick, interleaved, machine, show
from lens_core.records import Criterion
from lens_core.templates import Outside, Template
from rubrics.lint import Sample, lint
from rubrics.rubric import RUBRICS, Rubric
from taxonomy.sampler import sample
from taxonomy.tree import load_tree

MESSAGES = 11_520
DOUBLED = "{% set a = [1, 1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a }}"
NESTED = "{% set s = 'a' * 1000 %}{% for a in s %}{% for b in s %}{% if a == 'b' %}x{% endif %}{% endfor %}{% endfor %}"


def main(quick: Quick = False, json: Json = None) -> None:
    torch.set_num_threads(1)
    messages, prompts = (MESSAGES // 20, 50) if quick else (MESSAGES, 1000)
    rubric, lens = Rubric.load("shapes"), Rubric.load("lens")
    drawn = sample(load_tree("shapes"), prompts, seed=0)
    questions = [(draw.text, one) for draw in drawn for one in lens.criteria(draw.text, {})]
    questions = (questions * (1 + messages // len(questions)))[:messages]
    samples = [Sample(draw.text, draw.facts) for draw in drawn[:50]]
    contestants: dict[str, tuple[int, Callable[[], Any]]] = {
        "judge messages": (messages, lambda: [lens.messages(text, one) for text, one in questions]),
        "judge messages, bare Jinja": (messages, bare(questions)),
        "criteria of prompts": (prompts, lambda: [rubric.criteria(draw.text, draw.facts) for draw in drawn]),
        "rubric loaded": (1, lambda: Rubric.load("shapes")),
        "rubric linted on 50 prompts": (1, lambda: lint("shapes", samples)),
        "lists doubled 60 times, refused": (1, refused(DOUBLED)),
        "a million turns, refused": (1, refused(NESTED)),
    }
    device = torch.device("cpu")
    seconds = interleaved({name: run for name, (_, run) in contestants.items()}, rounds=3, device=device)
    rows = [
        {"what": name, "how many": str(count), "seconds": seconds[name], "us each": seconds[name] / count * 1e6}
        for name, (count, _) in contestants.items()
    ]
    show(f"Rubrics on {machine(device)}", rows, json)


def bare(questions: list[tuple[str, Criterion]]) -> Callable[[], Any]:
    """The same messages without a sandbox; the prompt's quotes are left to Python, as ours are."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = repr
    template = environment.from_string(Path(RUBRICS / "judge.j2").read_text(encoding="utf-8"))

    def render() -> list[str]:
        return [
            template.render(part=part, prompt=text, criterion={"name": one.name, "text": one.text}).strip()
            for text, one in questions
            for part in ("system", "user")
        ]

    return render


def refused(source: str) -> Callable[[], None]:
    """Render a template that must not come to an end by itself."""
    template = Template(source, where="bomb")

    def render() -> None:
        try:
            template.render()
        except Outside:
            return
        raise AssertionError("the sandbox let it through")

    return render


if __name__ == "__main__":
    typer.run(main)
