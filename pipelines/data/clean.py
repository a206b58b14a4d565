"""`lens-rl data clean`: list, score, decide, report. What is done is kept, so each rerun does only what is missing."""

import json
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from lens_core.progress import ProgressDisplay
from lens_core.recipes import find_recipe, load_recipe, recipe_of
from lens_core.runs import RunFolder, write_whole
from pipelines.data.cleaning.recipe import CleanRecipe
from pipelines.data.cleaning.sources import place_of, refuse_out_inside
from pipelines.data.needs import need

FUNNEL = "funnel.json"
LIBRARIES = ("cv2", "daft", "faiss", "pyarrow")


def load(recipe: Path | None, overrides: list[str]) -> CleanRecipe:
    """The recipe of a file, or of `--set` alone. Raises RecipeProblem."""
    if recipe is None:
        return recipe_of(CleanRecipe, overrides, "--set")
    return load_recipe(CleanRecipe, find_recipe(str(recipe), recipe.parent), overrides)


def clean(source: str, out: Path, recipe: CleanRecipe, *, column: str | None = None) -> dict[str, Any]:
    """Clean a source into a folder; returns the funnel as plain data.

    Thresholds and models may change from call to call, the source may not. Raises RecipeProblem or RunProblem.
    """
    need("cleaning", "data", *LIBRARIES)
    from pipelines.data.cleaning.funnel import Funnel
    from pipelines.data.cleaning.manifest import find_duplicates, write_manifest
    from pipelines.data.cleaning.page import REPORT, write_page
    from pipelines.data.cleaning.scorers import load as load_scorer
    from pipelines.data.cleaning.scoring import score, use_engine
    from pipelines.data.cleaning.tables import Tables

    refuse_out_inside(source, out)
    for name, scorer in recipe.scorers().items():
        load_scorer(name, scorer)  # A model that is not there is found before the first image is read.
    with RunFolder(out) as folder:
        origin = {"source": place_of(source), "column": column}
        folder.keep_config(_yaml({**origin, **recipe.model_dump()}), may_change=tuple(CleanRecipe.model_fields))
        tables = Tables(out, recipe)
        tables.list_source(source, column)
        use_engine(recipe.engine)
        done = sum(tables.rows(part) for part in tables.parts if not tables.missing(part))
        with ProgressDisplay("images", tables.images, done=done) as display:

            def report(images: int) -> None:
                nonlocal done
                done += images
                display.update(done, "scored")

            score(tables, recipe, report)
        funnel = Funnel(tables, recipe)
        for rows in write_manifest(tables, recipe, find_duplicates(tables, recipe)):
            funnel.take(rows)
        write_page(funnel, out / REPORT)
        found = funnel.plain()
        write_whole(out / FUNNEL, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return found


def print_funnel(found: dict[str, Any], out: Path, console: Console) -> None:
    """The funnel as a table, and what was not run in so many words."""
    share = found["kept"] / max(found["images"], 1)
    table = Table(title=f"{found['kept']:,} of {found['images']:,} images kept ({share:.0%})", title_justify="left")
    for name in ("step", "dropped", "left", "limits"):
        table.add_column(name, justify="right" if name in ("dropped", "left") else "left")
    for step in found["steps"]:
        limits = ", ".join(f"{name} {value:g}" for name, value in step["limits"].items())
        if step["state"] == "run":
            how = f"{limits}; {step['how']}" if step["how"] else limits
            table.add_row(step["step"], f"{step['dropped']:,}", f"{step['left']:,}", how)
        else:
            table.add_row(step["step"], "not run", f"{step['left']:,}", step["how"], style="yellow")
    console.print(table)
    for reason, count in list(found["reasons"].items())[:8]:
        console.print(f"  {count:,} x {reason}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"manifest: {out / 'manifest.parquet'}\nreport: {out / 'report.html'}", highlight=False, soft_wrap=True
    )


def _yaml(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
