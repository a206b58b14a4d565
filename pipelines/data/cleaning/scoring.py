"""The plan that scores images on Daft: in this process, or unchanged on a Ray cluster.

A row of the plan is a chunk of `CHUNK` images with everything that is measured of them, so that a model sees the same
batches on every engine and gives the same numbers. Results are written part by part as they arrive.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lens_core.runs import RunProblem
from pipelines.data.cleaning import QUIET
from pipelines.data.cleaning.reading import Unreadable, read_all
from pipelines.data.cleaning.recipe import CleanRecipe
from pipelines.data.cleaning.sources import Reference
from pipelines.data.cleaning.tables import PIXELS, ROWS, Tables, schema_of

CHUNK = 32
WAVE = {"native": 2, "ray": 64}
"""Parts of one plan, by engine: enough to keep its cores busy, few enough to hold their results."""
MAX_ERROR_SHARE = 0.2
"""Share of a part's images on which a scorer may fail; beyond it the scorer is at fault, not the images."""
FEWEST_ERRORS = 8


def use_engine(engine: str) -> None:
    """Choose where plans run; a process has one choice. Ray finds a cluster by RAY_ADDRESS, or starts one here."""
    import daft

    if engine == "ray":
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise RunProblem("--engine ray: Ray is not installed: pip install 'lens-rl[ray]'") from error
        if not ray.is_initialized():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, runtime_env={"env_vars": QUIET})
        daft.set_runner_ray(noop_if_initialized=True)
    if (used := daft.get_or_infer_runner_type()) != engine:
        raise RunProblem(f"--engine {engine}: this process runs its plans on {used} already")


def score(tables: Tables, recipe: CleanRecipe, report: Callable[[int], None]) -> None:
    """Measure whatever is missing; `report` is told how many images have become complete.

    Raises RunProblem where a scorer fails on more than MAX_ERROR_SHARE of a part, or the disk says no.
    """
    missing = {part: tables.missing(part) for part in tables.parts}
    for names, group in itertools.groupby(tables.parts, key=missing.__getitem__):
        parts = list(group)
        size = WAVE[recipe.engine]
        for first in range(0, len(parts) * bool(names), size):
            for part, found in _wave(tables, parts[first : first + size], names, recipe):
                for name in names:
                    _refuse_a_broken_scorer(name, found[name])
                    tables.write(name, part, found[name])
                report(tables.rows(part))


def _wave(
    tables: Tables, parts: Sequence[int], names: Sequence[str], recipe: CleanRecipe
) -> Iterator[tuple[int, dict[str, pa.Table]]]:
    """Each part with its tables by measure, in the order in which they become complete."""
    import daft

    chunks = [
        {"part": part, "chunk": start // CHUNK, "references": index.slice(start, CHUNK).to_pylist()}
        for part in parts
        for index in (tables.index(part),)
        for start in range(0, index.num_rows, CHUNK)
    ]
    asked = recipe.model_dump_json(include=set(names))
    measured: Any = daft.func(measure_chunk, return_dtype=daft.DataType.binary(), use_process=False)
    plan = (
        daft.from_pylist(chunks)
        .into_batches(1)
        .select("part", "chunk", measured(daft.col("references"), ",".join(names), asked).alias("found"))
    )
    arrived: dict[int, dict[int, pa.Table]] = {part: {} for part in parts}
    for batch in plan.to_arrow_iter():
        for row in batch.to_pylist():
            part = row["part"]
            arrived[part][row["chunk"]] = pa.ipc.open_stream(row["found"]).read_all()
            if len(arrived[part]) == -(-tables.rows(part) // CHUNK):
                whole = pa.concat_tables([table for _, table in sorted(arrived.pop(part).items())])
                yield part, {name: pa.Table.from_struct_array(whole.column(name)) for name in names}


def measure_chunk(references: list[dict[str, Any]], names: str, asked: str) -> bytes:
    """Read each image once, decode it, and measure it by all `names`; a struct column a name, as an Arrow stream."""
    recipe = CleanRecipe.model_validate_json(asked)
    wanted = names.split(",")
    contents = read_all([Reference(**one) for one in references])
    columns = {}
    if PIXELS in wanted:
        columns[PIXELS] = [_pixels(content) for content in contents]
    if scorers := {name: scorer for name, scorer in recipe.scorers().items() if name in wanted}:
        columns |= _by_models(contents, scorers)
    table = pa.table({name: pa.array(columns[name], pa.struct(list(schema_of(name)))) for name in wanted})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def _pixels(content: bytes | Unreadable) -> dict[str, Any]:
    from pipelines.data.cleaning.pixels import measure

    try:
        if isinstance(content, Unreadable):
            raise content
        return {"problem": "", **measure(content)}
    except Unreadable as problem:
        return {"problem": str(problem)}


def _by_models(contents: Sequence[bytes | Unreadable], scorers: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    from pipelines.data.cleaning.pixels import decode, shrink
    from pipelines.data.cleaning.scorers import LONGEST, load, score_all

    images: dict[int, Any] = {}
    for place, content in enumerate(contents):
        try:
            if not isinstance(content, Unreadable):
                images[place] = shrink(decode(content, LONGEST).rgb, LONGEST)
        except Unreadable:
            continue
    found: dict[str, list[dict[str, Any]]] = {}
    for name, scorer in scorers.items():
        rows: list[dict[str, Any]] = [{"problem": "unreadable"} for _ in contents]
        scores = score_all(load(name, scorer), list(images.values())) if images else []
        for place, (problem, value) in zip(images, scores, strict=True):
            if name == "embedding" and value is not None:
                rows[place] = {"problem": problem, "vector": list(np.asarray(value, np.float16))}
            else:
                rows[place] = {"problem": problem, "score": value}
        found[name] = rows
    return found


def _refuse_a_broken_scorer(name: str, table: pa.Table) -> None:
    problems = [problem for problem in table.column("problem").to_pylist() if problem != "unreadable"]
    failed = [problem for problem in problems if problem]
    if name != PIXELS and len(failed) >= FEWEST_ERRORS and len(failed) > MAX_ERROR_SHARE * len(problems):
        raise RunProblem(
            f"{name}: the scorer fails on {len(failed)} of {len(problems)} images, for example: {failed[0]}. "
            "What was scored before is kept: mend it, then start the same command again."
        )


assert ROWS % CHUNK == 0
