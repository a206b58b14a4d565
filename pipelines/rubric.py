"""`lens-rl rubric new | lint | show`: a rubric of one's own, what is wrong with it, and what a judge will read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console

from lens_core.recipes import RecipeProblem, nearest
from lens_core.records import Criterion
from lens_core.runs import whole_folder
from lens_core.templates import TemplateProblem
from rubrics.lint import Finding, Sample, lint
from rubrics.rubric import RUBRICS, Fact, Rubric, RubricFile, read_rubric
from rubrics.samples import MOST, first_examples
from taxonomy.briefs import briefs
from taxonomy.build import build
from taxonomy.grammar import Grammar
from taxonomy.items import ItemTree
from taxonomy.prompt_set import load_prompts
from taxonomy.sampler import draws
from taxonomy.tree import TREES, load_any_tree

STARTER = RUBRICS / "starter" / "rubric.yaml"
PROMPT_FILES = (".jsonl", ".txt", ".gz", ".parquet")
DRAWS_A_CATEGORY = 60
"""Prompts of each category of a tree that lint tries a rubric on."""
PROMPTS_OF_ITEMS = 600
"""Prompts of a tree of items that lint tries a rubric on."""


def new(folder: Path) -> list[Path]:
    """Write a commented rubric and its judge template into a new folder, whose name the rubric gets.

    Raises RecipeProblem where the folder exists: nothing is overwritten.
    """
    if folder.exists():
        raise RecipeProblem(f"{folder} exists already: give the rubric another name, or move it away")
    with whole_folder(folder) as draft:
        text = STARTER.read_text(encoding="utf-8").replace("name: starter", f"name: {folder.name}")
        (draft / "rubric.yaml").write_text(text, encoding="utf-8")
        # The shipped template to the letter: as long as it is not edited, verdicts are shared with the shipped rubrics.
        (draft / "judge.j2").write_bytes((RUBRICS / "judge.j2").read_bytes())
    return [folder / "rubric.yaml", folder / "judge.j2"]


def findings(rubric: str, on: str | None = None) -> list[Finding]:
    """What is wrong with a rubric, tried on the facts of a tree or of a prompt file.

    Without `on`, a shipped rubric is tried on the tree of its own name where that draws facts, and any other on the
    combinations of its own examples.
    """
    if on is not None:
        return lint(rubric, _of_a_file(Path(on)) if Path(on).suffix in PROMPT_FILES else _drawn(on))
    try:
        return lint(rubric, _drawn(rubric) if (TREES / f"{rubric}.yaml").is_file() else [])
    except NoFacts:
        return lint(rubric)


class NoFacts(RecipeProblem):
    """There is nothing to try a rubric on."""


def _of_a_file(path: Path) -> list[Sample]:
    """The prompts of a file that say their facts; the first ones will do."""
    samples = [Sample(prompt.text, prompt.facts) for prompt in load_prompts(path) if prompt.facts]
    if not samples:
        raise NoFacts(f"--on {path}: none of its prompts has facts; lint without --on tries the rubric's examples")
    return samples[:MOST]


def _drawn(name: str) -> list[Sample]:
    """Prompts of a tree; for a tree of items, whose rubric is also for prompts without facts, one of those too."""
    try:
        tree = load_any_tree(name)
    except RecipeProblem as problem:
        raise NoFacts(str(problem)) from problem
    if isinstance(tree, ItemTree):
        some = briefs(tree, min(tree.size, PROMPTS_OF_ITEMS), seed=0)
        built = build(tree, Grammar.load(tree, seed=0), some, seed=0)
        return [Sample(draw.text, draw.facts) for draw in built.draws] + [Sample("a picture", {})]
    return [
        Sample(draw.text, draw.facts)
        for category in tree.categories
        for draw in islice(draws(tree, category, seed=0), DRAWS_A_CATEGORY)
    ]


@dataclass(frozen=True, slots=True)
class Shown:
    """A criterion and the texts that a language model gets for it."""

    criterion: Criterion
    system: str
    user: str


def show(rubric: str, prompt: str, facts: Mapping[str, Fact]) -> list[Shown]:
    """What a judge reads of one prompt, criterion by criterion."""
    loaded = Rubric.load(rubric)
    try:
        criteria = loaded.criteria(prompt, facts)
    except TemplateProblem as problem:
        raise TemplateProblem(f"{problem} (--fact NAME=VALUE gives one here)") from problem
    return [Shown(criterion, *loaded.messages(prompt, criterion)) for criterion in criteria]


def facts_of(rubric: str, given: Iterable[str]) -> dict[str, Fact]:
    """`colour=red` facts over a rubric's first examples. Raises RecipeProblem for a fact that it does not have."""
    file = read_rubric(rubric).file
    return {**first_examples(file), **dict(_fact(text, file) for text in given)}


def _fact(text: str, file: RubricFile) -> tuple[str, Fact]:
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise RecipeProblem(f"--fact {text}: write it as name=value, for example --fact colour=red")
    if name not in file.facts:
        known = f"; there are: {', '.join(file.facts)}" if file.facts else "; it has no facts"
        raise RecipeProblem(f"--fact {text}: rubric {file.name} has no fact {name!r}{nearest(name, file.facts)}{known}")
    examples = file.facts[name]
    number = value.lstrip("-").isdigit() and not any(isinstance(example, str) for example in examples)
    return name, int(value) if number else value


def print_shown(shown: list[Shown], facts: Mapping[str, Fact], console: Console) -> None:
    """The system text once where it is always the same, then each criterion with its user text."""
    say = lambda text, **style: console.print(text, markup=False, highlight=False, soft_wrap=True, **style)  # noqa: E731
    if facts:
        say("facts: " + ", ".join(f"{name}={value}" for name, value in facts.items()))
    systems = {one.system for one in shown}
    if len(systems) == 1:
        say("\nsystem, the same for every criterion", style="bold")
        say(shown[0].system)
    for one in shown:
        criterion = one.criterion
        about = [f"kind {criterion.kind}", f"weight {criterion.weight:g}"]
        about += [f"requires {criterion.requires}"] if criterion.requires else []
        say(f"\n{criterion.name} ({', '.join(about)})", style="bold")
        if len(systems) > 1:
            say(one.system + "\n")
        say(one.user)
        if criterion.check:
            say("check for programs: " + ", ".join(f"{key} = {value}" for key, value in criterion.check.items()))
