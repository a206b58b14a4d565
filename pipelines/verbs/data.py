"""`lens-rl data`: from a pile of images to training shards."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import NO_OVERRIDES, Json, Overrides, problems_explained

data_app = typer.Typer(no_args_is_help=True, help="Training data: clean a pile of images, caption them, pack shards.")


@data_app.callback()
def data() -> None:
    """Training data: clean a pile of images, caption them, pack shards."""


@data_app.command("clean")
@problems_explained
def data_clean(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder of images, WebDataset tars or Parquet files, one such file, or s3://BUCKET/FOLDER.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for scores, manifest and report.")],
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file of thresholds and models.")] = None,
    set_: Overrides = NO_OVERRIDES,
    engine: Annotated[
        str | None, typer.Option(help="native, in this process, or ray, on the cluster of RAY_ADDRESS or a local one.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of Parquet files that holds images, paths or URLs; by name if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Clean images in nine steps. Started again, it goes on where it was; with other thresholds, it decides anew.

    Example: lens-rl data clean photos --out cleaned --set thresholds.sharpness=0.08
    """
    from rich.console import Console

    from pipelines.data import clean as job

    overrides = [*set_, *([f"engine={engine}"] if engine else [])]
    found = job.clean(source, out, job.load(recipe, overrides), column=column)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        job.print_funnel(found, out, Console())
