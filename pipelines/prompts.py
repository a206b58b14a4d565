"""`lens-rl prompts`: build a prompt set from a taxonomy tree, count what a set covers, show some of it."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Column, Table

from lens_core.asking import AskModel
from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem, nearest, recipe_of
from lens_core.records import Prompt
from lens_core.runs import write_whole
from lens_rl.recipe import Endpoint
from rubrics.rubric import RUBRICS, Rubric
from taxonomy.briefs import adapted_briefs, briefs, interest_in
from taxonomy.build import Writer, build
from taxonomy.coverage_page import coverage_page
from taxonomy.grammar import Grammar
from taxonomy.items import ItemTree
from taxonomy.near_duplicates import BOUND, LEAK_BOUND
from taxonomy.prompt_set import find_set, load_prompts, manifest_of, write_prompts, writer_of
from taxonomy.sampler import Draw, sample
from taxonomy.statistics import Statistics, mean, statistics
from taxonomy.tree import Tree, load_any_tree
from taxonomy.writer import ModelWriter

Subset = Literal["all", "half", "quarter", "without-text"]
SUBSETS: tuple[Subset, ...] = ("all", "half", "quarter", "without-text")


@dataclass(frozen=True)
class Order:
    """What set to build."""

    tree: str
    out: Path
    count: int | None = None
    """Prompts before `subset` is taken; the tree's own size if not given."""
    seed: int = 0
    rubric: str | None = None
    """Writes the criteria; the rubric with the tree's name if not given."""
    subset: Subset = "all"
    benchmarks: tuple[Path, ...] = ()
    """Prompt files that no prompt may repeat."""
    pass_rates: Path | None = None
    """A run folder, or a JSON file of pass rates by prompt id: ask more where there is more to learn."""


def build_set(order: Order, model: AskModel | None = None) -> dict[str, Any]:
    """Write the set with its criteria, and a manifest beside it, which is returned.

    `model` writes the prompts of an item tree; without one the tree's grammar does. Raises ValueErrors that name the
    field and the fix before anything is written.
    """
    writer_of(order.out)
    tree = load_any_tree(order.tree)
    rubric = Rubric.load(order.rubric or _rubric_of(tree))
    if isinstance(tree, Tree):
        draws, about = _draw_slots(tree, order), {"writer": f"the tree {tree.name} itself"}
    else:
        draws, about = _write_items(tree, order, model)
    chosen = _subset(draws, order.subset)
    prompts = [_prompt(draw, rubric) for draw in chosen]
    set_hash = write_prompts(order.out, prompts)
    manifest = {
        "set": set_hash,
        "prompts": len(prompts),
        "tree": tree.name,
        **about,
        "seed": order.seed,
        "subset": order.subset,
        "rubric": {"name": rubric.name, "hash": rubric.hash},
        "counts": _counts(statistics(prompts)),
    }
    write_whole(manifest_of(order.out), json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def subset_named(name: str) -> Subset:
    """The subset with this name. Raises RecipeProblem."""
    for subset in SUBSETS:
        if name == subset:
            return subset
    raise RecipeProblem(f"--subset: unknown subset {name!r}{nearest(name, SUBSETS)}; there are: {', '.join(SUBSETS)}")


def language_model(fields: Sequence[str]) -> AskModel:
    """The client of the model that a set is written by, from FIELD=VALUE. Raises RecipeProblem, ModelProblem."""
    from lens_rl.judges.client import ChatModel  # It takes longer to import than most verbs take to run.

    return ChatModel(recipe_of(Endpoint, fields, "--writer"), where="--writer")


def write_page(name: str, prompts: Sequence[Prompt], found: Statistics, out: Path) -> None:
    """The statistics as an HTML page, with a few prompts."""
    write_whole(out, coverage_page(name, found, some(prompts, 2 * max(len(found.categories), 5), None)))


def read_set(name: str) -> list[Prompt]:
    """The prompts of a set by name, or of a prompt file. Raises RecipeProblem."""
    return load_prompts(find_set(name))


def pass_rates_of(path: Path) -> dict[str, float]:
    """Pass rates by prompt id: from a JSON object, or the share of yes among the verdicts of a run."""
    stores = sorted(path.glob("verdicts-rank*.sqlite")) if path.is_dir() else []
    if stores:
        return _of_stores(stores)
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeProblem(
            f"--pass-rates {path} is neither a run folder with verdicts nor a JSON object of pass rates by prompt id"
        ) from error
    if not isinstance(rates, dict) or not all(isinstance(r, int | float) and 0 <= r <= 1 for r in rates.values()):
        raise RecipeProblem(f'--pass-rates {path} must be an object such as {{"a prompt\'s id": 0.4}}, rates in [0, 1]')
    return {str(id_): float(rate) for id_, rate in rates.items()}


def print_manifest(manifest: Mapping[str, Any], out: Path, console: Console) -> None:
    table = Table("category", "prompts", "sub-categories")
    for category, row in manifest["counts"]["categories"].items():
        table.add_row(category, f"{row['prompts']:,}", str(len(row["sub_categories"]) or "-"))
    console.print(table)
    console.print(f"{manifest['prompts']:,} prompts in {out}, sha256 {manifest['set']}", soft_wrap=True)


def print_statistics(found: Statistics, console: Console) -> None:
    """What a set covers, as two tables."""
    names = found.all_dimensions()
    columns = (Column(name.split()[0], justify="right") for name in ("prompts", *names))
    table = Table(Column("category"), *columns, box=None, padding=(0, 1, 0, 0))
    for category, n in found.categories.items():
        shares = (f"{found.dimensions[category][name] / n:.0%}" for name in names)
        table.add_row(category, f"{n:,}", *shares)
    table.caption = "prompts, and the share of them that describes each dimension"
    kinds = Table("kind of criterion", *(Column(name, justify="right") for name in ("criteria", "a prompt")), box=None)
    for kind, n in found.kinds.most_common():
        kinds.add_row(kind, f"{n:,}", f"{n / found.prompts:.2f}")
    console.print(table, "", kinds, "")
    console.print(
        f"{found.prompts:,} prompts: {mean(found.words_each):.1f} words, {mean(found.dimensions_each):.2f} dimensions, "
        f"{mean(found.criteria_each):.1f} criteria each"
    )


def some(prompts: Sequence[Prompt], n: int, category: str | None) -> list[Prompt]:
    """`n` prompts, evenly spaced over the set or over one category of it."""
    categories = dict.fromkeys(prompt.category for prompt in prompts)
    if category is not None and category not in categories:
        raise RecipeProblem(f"no prompt is of category {category!r}{nearest(category, categories)}")
    chosen = [prompt for prompt in prompts if category in (None, prompt.category)]
    return [chosen[place * len(chosen) // n] for place in range(min(n, len(chosen)))] if n < len(chosen) else chosen


def print_prompts(prompts: Sequence[Prompt], console: Console) -> None:
    for prompt in prompts:
        console.print(f"\n[bold]{prompt.id}[/bold]  {prompt.category}: {', '.join(prompt.dimensions)}", highlight=False)
        console.print(prompt.text, markup=False, highlight=False, soft_wrap=True)
        for criterion in prompt.criteria:
            console.print(f"  - {criterion.name}: {criterion.text}", markup=False, highlight=False, soft_wrap=True)


def _rubric_of(tree: Tree | ItemTree) -> str:
    if (RUBRICS / f"{tree.name}.yaml").is_file():
        return tree.name
    raise RecipeProblem(f"there is no rubric {tree.name!r}, the name of the tree: give one with --rubric")


def _draw_slots(tree: Tree, order: Order) -> list[Draw]:
    for field in ("benchmarks", "pass_rates"):
        if getattr(order, field):
            raise RecipeProblem(
                f"--{field.replace('_', '-')} is for trees of items; {tree.name} says its prompts itself"
            )
    if order.count is None:
        raise RecipeProblem(f"--count: say how many prompts to draw; the tree {tree.name} has no size of its own")
    return sample(tree, order.count, order.seed)


def _write_items(tree: ItemTree, order: Order, model: AskModel | None) -> tuple[list[Draw], dict[str, Any]]:
    count = tree.size if order.count is None else order.count
    # A half is a set of half the size: at every length the shares are kept.
    wanted = {"half": count // 2, "quarter": count // 4}.get(order.subset, count)
    journal = order.out.with_name(f"{order.out.name}.part")
    writer: Writer = Grammar.load(tree, order.seed) if model is None else ModelWriter(model, journal)
    benchmarks = [prompt.text for file in order.benchmarks for prompt in load_prompts(file)]
    interest = interest_in(tree, pass_rates_of(order.pass_rates)) if order.pass_rates else None
    drawn = adapted_briefs(tree, wanted, order.seed, interest) if interest else briefs(tree, wanted, order.seed)
    with ProgressDisplay("prompts", wanted) as bar:
        built = build(
            tree, writer, drawn, order.seed, benchmarks=benchmarks, progress=lambda done: bar.update(done, "")
        )
    if model is not None:
        journal.unlink(missing_ok=True)
    about = {
        "tree_hash": tree.hash,
        "writer": writer.name,
        "near_duplicates": {"refused": built.refused["near-duplicate"], "word_triples_shared_below": BOUND},
        "benchmarks": {
            "files": [file.name for file in order.benchmarks],
            "refused": built.refused["benchmark"],
            "word_triples_held_below": LEAK_BOUND,
        },
        **({"adapted": True} if interest else {}),
    }
    return list(built.draws), about


def _subset(draws: list[Draw], subset: Subset) -> list[Draw]:
    return [draw for draw in draws if "text" not in draw.dimensions] if subset == "without-text" else draws


def _prompt(draw: Draw, rubric: Rubric) -> Prompt:
    criteria = rubric.criteria(draw.text, draw.facts)
    return Prompt(draw.id, draw.text, draw.category, draw.dimensions, criteria, draw.facts)


def _counts(found: Statistics) -> dict[str, Any]:
    return {
        "categories": {
            category: {"prompts": n, "sub_categories": dict(found.sub_categories.get(category, {}))}
            for category, n in found.categories.items()
        },
        "dimensions": {name: sum(c[name] for c in found.dimensions.values()) for name in found.all_dimensions()},
        "criteria": sum(size * n for size, n in found.criteria_each.items()),
        "words": sum(size * n for size, n in found.words_each.items()),
    }


def _of_stores(stores: Sequence[Path]) -> dict[str, float]:
    sums: dict[str, tuple[float, int]] = {}
    for store in stores:
        try:
            connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
            rows = connection.execute("SELECT prompt_id, sum(value), count(value) FROM verdicts GROUP BY prompt_id")
            for prompt_id, passed, n in rows:
                before = sums.get(prompt_id, (0.0, 0))
                sums[prompt_id] = (before[0] + (passed or 0), before[1] + n)
            connection.close()
        except sqlite3.Error as error:
            raise RecipeProblem(f"--pass-rates: {store} cannot be read: {error}") from error
    return {prompt_id: passed / n for prompt_id, (passed, n) in sums.items() if n}
