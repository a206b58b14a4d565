"""From scores to decisions: the manifest, a row an image, written part by part in the order of the source.

Two passes over the scores: the first finds who survives the eight steps of single images, the second writes what was
decided after near-duplicates among the survivors are known. Neither reads an image, and neither holds more than a
part, but for a hash or an embedding of each survivor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lens_core.runs import whole_file
from pipelines.data.cleaning.near_duplicates import Pairs, components, cosine_pairs, hash_pairs
from pipelines.data.cleaning.recipe import CleanRecipe, Thresholds
from pipelines.data.cleaning.steps import NEAR_DUPLICATE, SCORED, decide
from pipelines.data.cleaning.tables import INDEX, PIXEL_SCORES, PIXELS, ROWS, Tables

MANIFEST = pa.schema(
    [
        *INDEX.remove(INDEX.get_field_index("problem")),
        ("kept", pa.bool_()),
        ("dropped_by", pa.string()),
        ("reason", pa.string()),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float32()),
        ("copies", pa.int32()),
        *PIXEL_SCORES.remove(0),
        *((name, pa.float32()) for name in SCORED),
    ]
)
"""`kept` says that `dropped_by` is empty; `copies` is the size of the component of near-duplicates, 1 where there are
none; `similarity` is that to the most similar image of the component: the kept one, or another on the way to it."""


@dataclass(frozen=True, slots=True, eq=False)
class Duplicates:
    """What is known of near-duplicates among the survivors of the steps before: arrays over all images."""

    kept_instead: np.ndarray
    """int64 (N,): the image that is kept in the place of this one; itself where it is not dropped."""
    similarity: np.ndarray
    copies: np.ndarray


def rows_of(tables: Tables, part: int) -> pd.DataFrame:
    """Everything stored of a part's images but embeddings, a row an image."""
    index = tables.index(part)
    columns = {name: index.column(name) for name in INDEX.names if name != "problem"}
    pixels = tables.scores(PIXELS, part)
    columns |= {name: pixels.column(name) for name in pixels.column_names}
    for name in tables.measures:
        if name in SCORED:
            scores = tables.scores(name, part)
            columns |= {name: scores.column("score"), f"{name}_problem": scores.column("problem")}
    frame = pa.table(columns).to_pandas()
    if "embedding" in tables.measures:
        frame["embedding_problem"] = tables.scores("embedding", part).column("problem").to_pandas()
    return frame


def decided(tables: Tables, limits: Thresholds) -> Iterator[tuple[int, pd.DataFrame]]:
    """Each part after the steps of single images."""
    for part in tables.parts:
        yield part, decide(rows_of(tables, part), limits, tables.measures)


def find_duplicates(tables: Tables, recipe: CleanRecipe) -> Duplicates:
    """Compare the survivors; of each component the best is kept: by aesthetics, then by area, then by name.

    Copies to the byte are joined first, so that only different images are compared.
    """
    survivors, embedded = _survivors(tables, recipe)
    numbers = survivors.number.to_numpy()
    place = pd.factorize(survivors.sha256)[0]
    first = np.unique(place, return_index=True)[1]
    pairs = _pairs(survivors, first, embedded, recipe)
    labels = components(len(first), pairs)[place]
    similarity = _strongest(len(first), pairs)[place]
    similarity[np.bincount(place, minlength=len(first))[place] > 1] = 1.0

    aesthetics = survivors.aesthetics.to_numpy() if "aesthetics" in survivors else np.zeros(len(survivors))
    area = (survivors.height * survivors.width).to_numpy()
    best_first = np.lexsort((numbers, -area, -aesthetics))
    _, best = np.unique(labels[best_first], return_index=True)
    winner = numbers[best_first[best]]

    everyone = np.arange(tables.images)
    kept_instead, strength, copies = everyone.copy(), np.full(len(everyone), np.nan), np.ones(len(everyone), np.int32)
    kept_instead[numbers] = winner[labels]
    copies[numbers] = np.bincount(labels)[labels] if len(labels) else 1
    strength[numbers] = np.where(copies[numbers] > 1, similarity, np.nan)
    return Duplicates(kept_instead, strength, copies)


def write_manifest(tables: Tables, recipe: CleanRecipe, duplicates: Duplicates) -> Iterator[pd.DataFrame]:
    """Write the manifest; yields its rows part by part, with the number of the image kept `instead`.

    The file appears, whole, when the last part has been taken.
    """
    keys = _keys(tables, np.unique(duplicates.kept_instead[duplicates.copies > 1]))
    with whole_file(tables.manifest) as draft, pq.ParquetWriter(draft, MANIFEST, compression="zstd") as writer:
        for part, rows in decided(tables, recipe.thresholds):
            numbers = np.arange(part * ROWS, part * ROWS + len(rows))
            instead = duplicates.kept_instead[numbers]
            twin = instead != numbers
            copy_of = [keys[int(one)] if dropped else "" for one, dropped in zip(instead, twin, strict=True)]
            similarity = duplicates.similarity[numbers]
            rows = rows.assign(
                dropped_by=rows.dropped_by.where(~twin, NEAR_DUPLICATE),
                reason=[
                    f"nearly {key}, similarity {alike:.4f}" if key else reason
                    for key, alike, reason in zip(copy_of, similarity, rows.reason, strict=True)
                ],
                duplicate_of=copy_of,
                similarity=similarity,
                copies=duplicates.copies[numbers],
                instead=instead,
            )
            for name in SCORED:
                if name not in rows:
                    rows[name] = np.nan  # not run is not a score
            rows["kept"] = rows.dropped_by == ""
            writer.write_table(pa.Table.from_pandas(rows[MANIFEST.names], MANIFEST, preserve_index=False))
            yield rows


def _survivors(tables: Tables, recipe: CleanRecipe) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Number, hash and quality of each image that no step before has dropped, and their embeddings."""
    wanted = ["sha256", "hash", "height", "width", *(["aesthetics"] if "aesthetics" in tables.measures else [])]
    found, vectors = [], []
    for part, rows in decided(tables, recipe.thresholds):
        rows = rows.loc[rows.dropped_by == ""]
        found.append(rows.loc[:, wanted].assign(number=part * ROWS + rows.index))
        if "embedding" in tables.measures and len(rows):
            vectors.append(_vectors(tables, part, rows.index.to_numpy()))
    frame = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*wanted, "number"])
    return frame, np.concatenate(vectors) if vectors else None


def _vectors(tables: Tables, part: int, places: np.ndarray) -> np.ndarray:
    """Embeddings as float16 (M, D) of some images of a part."""
    column = tables.scores("embedding", part).column("vector").take(pa.array(places))
    return np.array(column.to_pylist(), np.float16)


def _pairs(survivors: pd.DataFrame, first: np.ndarray, embedded: np.ndarray | None, recipe: CleanRecipe) -> Pairs:
    if not len(first):
        return Pairs.of([])
    if embedded is not None:
        return cosine_pairs(embedded[first], recipe.thresholds.cosine)
    hashes = np.frombuffer(b"".join(survivors.hash.iloc[first]), np.uint8).reshape(len(first), -1)
    return hash_pairs(hashes, recipe.thresholds.hash_bits)


def _strongest(count: int, pairs: Pairs) -> np.ndarray:
    """The greatest similarity of each image to any other; NaN where it is near none."""
    strongest = np.full(count, np.nan)
    for side in (pairs.left, pairs.right):
        np.fmax.at(strongest, side, pairs.similarity)
    return strongest


def _keys(tables: Tables, numbers: np.ndarray) -> dict[int, str]:
    """The keys of some images; only their parts are read."""
    found: dict[int, str] = {}
    for part in np.unique(numbers // ROWS):
        keys: Any = tables.index(int(part)).column("key")
        places = numbers[numbers // ROWS == part]
        found |= {int(number): keys[int(number - part * ROWS)].as_py() for number in places}
    return found
