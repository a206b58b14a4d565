"""`lens-rl data`: from a pile of images to training shards."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.verbs.options import NO_FILES, NO_OVERRIDES, Json, Overrides, problems_explained

data_app = typer.Typer(no_args_is_help=True, help="Training data: clean images, caption them, draw text, pack shards.")
Sizes = Annotated[list[str], typer.Option("--size", metavar="HxW", help="Height x width, also several times.")]


@data_app.callback()
def data() -> None:
    """Training data: clean images, caption them, draw text, pack shards."""


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


@data_app.command("caption")
@problems_explained
def data_caption(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder that `data clean` wrote, or anything that it takes.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the captions.")],
    model: Annotated[
        list[str], typer.Option(metavar="FIELD=VALUE", help="model=NAME, base_url=URL, budget_usd=5, concurrency=64.")
    ],
    kind: Annotated[str, typer.Option(help="dense, brief or both.")] = "dense",
    template: Annotated[Path | None, typer.Option(metavar="FILE", help="Template of the question, a .j2 file.")] = None,
    as_json: Json = False,
) -> None:
    """Let a vision-language model caption pictures. Stopped, it goes on; nothing is paid for twice.

    Example: lens-rl data caption photos --out captions --model model=gpt-4.1-mini --model budget_usd=5
    """
    from rich.console import Console

    from pipelines.data import caption as job

    order = job.Order(source, out, job.kinds_named(kind), template)
    summary = job.caption(order, job.captioner(model))
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        job.print_summary(summary, out, Console())


@data_app.command("render-text")
@problems_explained
def data_render_text(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and their captions.")],
    count: Annotated[int, typer.Option(min=1, help="How many pictures; more later continue the same set.")] = 1000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    script: Annotated[
        list[str],
        typer.Option(help="latin, arabic, chinese, ..., also several times; all that have fonts if not given."),
    ] = NO_OVERRIDES,
    size: Sizes = NO_OVERRIDES,
    fonts: Annotated[
        list[Path], typer.Option(metavar="DIR", help="Folder of fonts, also several times; the system's if not given.")
    ] = NO_FILES,
    backgrounds: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures to write on; patterns if not given.")
    ] = None,
    texts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Lines to write, one a line; a small vocabulary if not given.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read each picture back, and leave out those that are misread.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes; any number makes the same files.")] = 1,
    as_json: Json = False,
) -> None:
    """Draw pictures of text, with exact captions and the place of every line. Stopped, it goes on.

    Example: lens-rl data render-text --out text --count 8 --script latin
    """
    from rich.console import Console

    from pipelines.data.buckets import sizes_named
    from pipelines.data.needs import need

    need("drawing text", "data", "cv2")
    from pipelines.data import render_text as job

    order = job.Order(
        out,
        count,
        seed=seed,
        scripts=tuple(dict.fromkeys(script)),
        fonts=tuple(fonts),
        backgrounds=backgrounds,
        texts=texts,
        check=check,
        workers=workers,
        sizes=sizes_named(size) or job.SIZES,
    )
    summary = job.render_text(order)
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        job.print_summary(summary, out, Console())


@data_app.command("pack")
@problems_explained
def data_pack(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SET...", help="Folders with a captions.jsonl, or such files.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the shards.")],
    size: Sizes = NO_OVERRIDES,
    validation: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share of the pictures to hold out.")] = 0.01,
    as_json: Json = False,
) -> None:
    """Pack captioned sets into training shards. Without --size, into the 27 buckets from 512 to 1024 pixels.

    Example: lens-rl data pack text --out shards
    """
    from rich.console import Console

    from pipelines.data import pack_captioned as job
    from pipelines.data.buckets import sizes_named
    from pipelines.data.pack import SAMPLES_PER_SHARD

    manifest = job.pack_captioned(
        sources, out, sizes=sizes_named(size), validation=validation, per_shard=SAMPLES_PER_SHARD
    )
    if as_json:
        print(json.dumps(manifest, indent=2, ensure_ascii=False))
    else:
        job.print_manifest(manifest, out, Console())
