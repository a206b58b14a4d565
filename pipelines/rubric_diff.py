"""`lens-rl rubric diff`: which verdicts, and which rewards, would be others under another rubric.

On a folder of pictures both rubrics are judged, stored verdicts first. On a run, whose pictures are gone, only what
its store holds is compared: there a criterion that reads otherwise now has no verdict yet, and is counted as such.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lens_core.recipes import RecipeProblem, read_recipe
from lens_core.records import Prompt
from lens_rl.judges.backend import Question
from lens_rl.judges.store import Asked, VerdictStore
from lens_rl.prompts import load_splits
from lens_rl.recipe import RlRecipe
from lens_rl.rewards import mean_of_valid, settled
from pipelines.rubric_try import STORE, Trial, agree_to, facts_given, judge_of, pictures_in
from rubrics.rubric import Rubric

MOST_SHOWN = 12
"""Changed verdicts that are printed one by one."""
_SAID = {1: "yes", 0: "no", None: "an error"}
STORE_OF_A_RUN = "verdicts-rank0.sqlite"


@dataclass(frozen=True, slots=True)
class Side:
    """One picture under one rubric: its criteria, and their values by name where they are known."""

    prompt: Prompt
    values: dict[str, int | None]

    @property
    def reward(self) -> float | None:
        """None as soon as one criterion has no verdict: half a rubric would be measured."""
        if any(criterion.name not in self.values for criterion in self.prompt.criteria):
            return None
        values = settled(self.prompt.criteria, [self.values[one.name] for one in self.prompt.criteria])
        return mean_of_valid(values, [one.weight for one in self.prompt.criteria], 0.0)


Pair = tuple[str, Side, Side]
"""A picture's name, and the picture under A and under B."""


@dataclass(slots=True)
class Change:
    """One criterion over all pictures. Shares are of its known verdicts; `unjudged` are those of B without one."""

    criterion: str
    pictures_a: int = 0
    pictures_b: int = 0
    yes_a: int = 0
    yes_b: int = 0
    yes_to_no: int = 0
    no_to_yes: int = 0
    unjudged: int = 0


@dataclass(frozen=True, slots=True)
class Turned:
    """A verdict that is another under B."""

    picture: str
    criterion: str
    a: int | None
    b: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from A to B. `orders` are pairs of pictures of one prompt: what a run learns from is their order."""

    pictures: int
    rewarded: int
    """Pictures that have a reward under both."""
    reward_a: float | None
    reward_b: float | None
    orders: int
    orders_turned: int
    """Pairs whose better picture is the worse one under B."""
    criteria: list[Change]
    turned: list[Turned]


def difference(pairs: Sequence[Pair]) -> Difference:
    """Compare the same pictures under two rubrics."""
    rows: dict[str, Change] = {}
    for _, a, b in pairs:
        for criterion in (*a.prompt.criteria, *b.prompt.criteria):
            rows.setdefault(criterion.name, Change(criterion.name))
        for name, row in rows.items():
            _count(row, name, a, b)
    both = [(a.prompt.text, a.reward, b.reward) for _, a, b in pairs if a.reward is not None and b.reward is not None]
    orders, turned = _orders(both)
    return Difference(
        pictures=len(pairs),
        rewarded=len(both),
        reward_a=sum(a for _, a, _ in both) / len(both) if both else None,
        reward_b=sum(b for _, _, b in both) / len(both) if both else None,
        orders=orders,
        orders_turned=turned,
        criteria=list(rows.values()),
        turned=[
            Turned(picture, name, before, b.values[name])
            for picture, a, b in pairs
            for name, before in a.values.items()
            if name in b.values and b.values[name] != before
        ],
    )


def _count(row: Change, name: str, a: Side, b: Side) -> None:
    before, after = a.values.get(name), b.values.get(name)
    row.pictures_a += before is not None
    row.pictures_b += after is not None
    row.yes_a += before == 1
    row.yes_b += after == 1
    row.yes_to_no += (before, after) == (1, 0)
    row.no_to_yes += (before, after) == (0, 1)
    row.unjudged += after is None and any(one.name == name for one in b.prompt.criteria)


def _orders(rewards: Iterable[tuple[str, float, float]]) -> tuple[int, int]:
    """Pairs of one prompt that differ under A, and how many of them stand the other way round under B."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for text, a, b in rewards:
        groups[text].append((a, b))
    pairs = [pair for group in groups.values() for pair in combinations(group, 2) if pair[0][0] != pair[1][0]]
    turned = sum((one[0] - other[0]) * (one[1] - other[1]) < 0 for one, other in pairs)
    return len(pairs), turned


def is_run(path: Path) -> bool:
    """Whether this is a run folder or its store, rather than a folder of pictures."""
    return path.suffix == ".sqlite" or (path / "config.yaml").is_file()


def of_pictures(
    folder: Path,
    a: str,
    b: str,
    prompts: Path | None,
    facts: Sequence[str],
    judge: Sequence[str],
    *,
    yes: bool,
    console: Console,
) -> list[Pair]:
    """Judge a folder's pictures with two rubrics; what is stored beside them is not asked again."""
    pictures = pictures_in(folder, prompts, facts_given(facts))
    sides: list[list[Side]] = []
    for rubric in (a, b):
        with Trial(rubric, pictures, judge_of(judge), folder / STORE) as trial:
            agree_to(trial.estimate(), yes=yes, console=console)
            judged = trial.judge()
        sides.append([Side(one.prompt, {v.criterion: v.value for v in one.verdicts}) for one in judged])
    return [(picture.file.name, one, other) for picture, one, other in zip(pictures, *sides, strict=True)]


def of_a_run(run: Path, a: str, b: str) -> list[Pair]:
    """The pictures of a run's store under two rubrics, from stored verdicts alone.

    The run's prompts are made again from its configuration, once with each rubric. Raises RecipeProblem for a folder
    that is no run, and where rubric A has no verdict in its store.
    """
    run = run.parent if run.suffix == ".sqlite" else run
    config, store = run / "config.yaml", run / STORE_OF_A_RUN
    if not config.is_file() or not store.is_file():
        raise RecipeProblem(f"--on {run}: no run is here (config.yaml and {STORE_OF_A_RUN}), nor pictures")
    recipe = read_recipe(RlRecipe, config.read_text(encoding="utf-8"), str(config))
    rubrics = [Rubric.load(name) for name in (a, b)]
    prompts = [_by_id(recipe, rubric) for rubric in rubrics]
    verdicts = VerdictStore(store)
    try:
        pairs = []
        for image, prompt_id, judge in _judged(store):
            sides = [
                _stored(verdicts, image, judge, by_id[prompt_id], rubric)
                for by_id, rubric in zip(prompts, rubrics, strict=True)
                if prompt_id in by_id
            ]
            if len(sides) == 2:
                pairs.append((image[:12], *sides))
    finally:
        verdicts.close()
    if not any(side.values for _, side, _ in pairs):
        raise RecipeProblem(f"--on {run}: its store has no verdict of rubric {a}; the run used {recipe.rubric.path}")
    return pairs


def _by_id(recipe: RlRecipe, rubric: Rubric) -> dict[str, Prompt]:
    splits = load_splits(recipe.prompts, rubric)
    return {prompt.id: prompt for prompt in (*splits.train, *splits.validation, *splits.test)}


def _judged(store: Path) -> list[tuple[str, str, str]]:
    """(picture, prompt, judge without its template) of everything that a store knows."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT DISTINCT image_sha, prompt_id, judge_id FROM verdicts").fetchall()
    database.close()
    return sorted({(image, prompt, judge.rpartition("+")[0]) for image, prompt, judge in rows})


def _stored(store: VerdictStore, image: str, judge: str, prompt: Prompt, rubric: Rubric) -> Side:
    questions = [Question(one, *rubric.messages(prompt.text, one)) for one in prompt.criteria]
    found = store.find(image, f"{judge}+{rubric.template_hash[:12]}", [Asked.of(one) for one in questions])
    return Side(prompt, {verdict.criterion: verdict.value for verdict in found if verdict is not None})


def table(found: Difference) -> Table:
    """Criterion by criterion."""
    rows = Table(title="Criteria", title_justify="left")
    rows.add_column("criterion", no_wrap=True)
    for column in ("A: yes", "B: yes", "yes to no", "no to yes", "unjudged"):
        rows.add_column(column, justify="right")
    for change in found.criteria:
        a, b = _share(change.yes_a, change.pictures_a), _share(change.yes_b, change.pictures_b)
        counts = (change.yes_to_no, change.no_to_yes, change.unjudged)
        rows.add_row(change.criterion, a, b, *(str(count) if count else "" for count in counts))
    return rows


def print_difference(found: Difference, console: Console) -> None:
    """The table, and what it comes to."""
    console.print(table(found))
    for one in found.turned[:MOST_SHOWN]:
        console.print(
            f"{one.picture}: {one.criterion}: {_SAID[one.a]} with A, {_SAID[one.b]} with B",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if (more := len(found.turned) - MOST_SHOWN) > 0:
        console.print(f"... and {more} more verdicts; --json has them all")
    if found.reward_a is None or found.reward_b is None:
        console.print("No picture has a reward under both: some of B's criteria were never judged on them.")
        return
    turned = f"; of {found.orders} pairs of one prompt, {found.orders_turned} change places" if found.orders else ""
    console.print(
        f"mean reward {found.reward_a:.3f} with A, {found.reward_b:.3f} with B, on {found.rewarded} of "
        f"{found.pictures} pictures{turned}",
        highlight=False,
        soft_wrap=True,
    )


def plain(found: Difference) -> dict[str, Any]:
    """For --json."""
    return asdict(found)


def _share(yes: int, of: int) -> str:
    return f"{yes / of:.2f} of {of}" if of else "-"
