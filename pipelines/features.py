"""`lens-rl features`: text features encoded once and kept on disk, so that nothing else needs the text encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from base_model.feature_cache import ORIGIN_FILE, FeatureCache, cache_features
from lens_core.doors import PREFIX
from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem
from lens_rl.models import model_folder
from lens_rl.prompts import load_splits
from lens_rl.recipe import RlRecipe
from rubrics.rubric import Rubric
from taxonomy.prompt_set import load_prompts


def texts_of_files(files: Sequence[Path]) -> list[str]:
    """The prompts of prompt files (.jsonl or .txt), each once."""
    return list(dict.fromkeys(prompt.text for file in files for prompt in load_prompts(file)))


def texts_of_recipe(recipe: RlRecipe) -> list[str]:
    """The prompts of all splits of an RL recipe, each once."""
    splits = load_splits(recipe.prompts, Rubric.load(recipe.rubric.path))
    prompts = (*splits.train, *splits.validation, *splits.test)
    return list(dict.fromkeys(prompt.text for prompt in prompts))


def cache(texts: Sequence[str], model: str, out: Path, *, threads: int = 0) -> dict[str, Any]:
    """Add the features of the texts to the cache at `out`, with a progress bar; what was done as plain data.

    With the `threads` of a recipe, its run finds the features that it would have made, to the bit.
    """
    if model.startswith(PREFIX):
        raise RecipeProblem(f"--model: a feature cache is made with a Lens folder, not with {model}")
    folder = model_folder(model)
    if not folder.is_dir():
        raise RecipeProblem(f"--model: there is no folder {model}; `shapes` is the embedded checkpoint")
    if threads:
        torch.set_num_threads(threads)
    before = len(FeatureCache(out)) if (out / ORIGIN_FILE).exists() else 0
    with ProgressDisplay("encode", len(texts)) as display:
        made, too_long = cache_features(
            out,
            folder,
            texts,
            device="cuda" if torch.cuda.is_available() else "cpu",
            watch=lambda done, _, text: display.update(done, text[:40]),
        )
    return {"added": len(made) - before, "too_long": too_long, **made.summary()}


def print_summary(summary: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Feature cache {summary['path']}", show_header=False)
    template = summary["template"]
    each = summary["bytes"] / max(summary["texts"], 1)
    for name, value in (
        ("texts", f"{summary['texts']:,}"),
        ("tokens kept", f"{summary['tokens']:,}"),
        ("on disk", f"{summary['bytes'] / 2**20:,.1f} MiB, {each / 2**10:,.0f} KiB a text"),
        ("features", f"blocks {list(summary['layers'])} x {summary['width']}, {summary['dtype']}"),
        (
            "template",
            f"date {template['date'] or 'none'}, {template['max_length']} tokens, cut: {template['truncation']}",
        ),
        ("encoder", summary["encoder"][:16]),
    ):
        table.add_row(name, value)
    console.print(table)
    if texts := summary.get("too_long"):
        console.print(f"[yellow]{len(texts)} texts are too long and were cut[/], for example {texts[0][:60]!r}")
