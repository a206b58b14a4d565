"""`lens-rl features`: prompts encoded once, and what a cache holds."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import NO_FILES, NO_OVERRIDES, Json, Overrides, problems_explained

features_app = typer.Typer(
    no_args_is_help=True, help="Text features kept on disk: nothing else needs the text encoder."
)


@features_app.command("cache")
@problems_explained
def features_cache(
    out: Annotated[Path, typer.Option(help="Folder of the cache; texts that are there are not encoded again.")],
    prompts: Annotated[
        list[Path], typer.Option(help="Prompt file (.jsonl or .txt); may be given several times.")
    ] = NO_FILES,
    recipe: Annotated[
        str | None, typer.Option(help="RL recipe whose prompts, of all splits, and model to take instead.")
    ] = None,
    set_: Overrides = NO_OVERRIDES,
    model: Annotated[str | None, typer.Option(help="`shapes` or a model folder; the recipe's if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Encode prompts once. Started again after a stop, it goes on where it was.

    Example: lens-rl features cache --prompts prompts.jsonl --model checkpoints/Lens --out features
    """
    from rich.console import Console

    from pipelines import features as job
    from pipelines.rl import load

    if bool(prompts) == bool(recipe):
        raise ValueError("give either --prompts FILE (and --model), or --recipe NAME (and --set)")
    if set_ and not recipe:
        raise ValueError("--set: there is no recipe to override; give --recipe NAME")
    config = load(recipe, set_) if recipe else None
    if not (chosen := model or (config and config.model)):
        raise ValueError("--model: name the model folder whose text encoder is to read the prompts")
    texts = job.texts_of_recipe(config) if config else job.texts_of_files(prompts)
    summary = job.cache(texts, chosen, out, threads=config.threads if config else 0)
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        job.print_summary(summary, Console())


@features_app.command("show")
@problems_explained
def features_show(
    cache: Annotated[Path, typer.Argument(help="Folder of a feature cache.")],
    as_json: Json = False,
) -> None:
    """Say what a feature cache holds, and of which text encoder.

    Example: lens-rl features show features
    """
    from rich.console import Console

    from base_model.feature_cache import FeatureCache
    from pipelines.features import print_summary

    summary = FeatureCache(cache).summary()
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        print_summary(summary, Console())
