"""Which images are nearly the same: exact comparison of hashes, or of embeddings inside cells; then components.

Of embeddings, only those that share a cell are compared. Cells are those of k-means on centred vectors, and each vector
is in its two nearest: raw vectors all point one way, and one cell of theirs can hold a sixth of them. The cosine itself
is that of the raw vectors, since that is what a threshold in a paper means.

Legend: N images, D dimensions, E pairs, M vectors of a cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

HASH_BITS = 256
BLOCK = 4096
"""Rows of one product: 64 MB of similarities, whatever the size of a cell."""
MOST_PAIRS = 2_000_000
VECTORS_A_CELL = 256
MOST_CELLS = 65_536
SAMPLE_A_CELL = 64
NEAREST_CELLS = 2
ITERATIONS = 10
DIGITS = 5
"""To which similarities are rounded: the digits below depend on how a product was cut up."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Near-duplicates: the numbers of both images, int64 (E,), and their similarity in (0, 1], float64 (E,)."""

    left: np.ndarray
    right: np.ndarray
    similarity: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.left, self.right, self.similarity

    @classmethod
    def of(cls, found: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Pairs:
        left, right, similarity = zip(*found, strict=True) if (found := list(found)) else ((), (), ())
        none = [np.zeros(0)]
        return cls(
            np.concatenate([*left, *none]).astype(np.int64),
            np.concatenate([*right, *none]).astype(np.int64),
            np.concatenate([*similarity, *none]).round(DIGITS),
        )


def hash_pairs(hashes: np.ndarray, most: int) -> Pairs:
    """All pairs of uint8 (N, 32) hashes that differ in at most `most` bits; similarity is the share of equal bits.

    Every hash is compared with every other: minutes for a million. Beyond that, an embedder is the way.
    """
    import faiss

    index = faiss.IndexBinaryFlat(HASH_BITS)
    index.add(hashes)  # pyright: ignore[reportCallIssue]

    def found() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(hashes), BLOCK):
            block = hashes[start : start + BLOCK]
            limits, distances, right = index.range_search(block, most + 1)  # pyright: ignore[reportCallIssue]
            left = start + np.repeat(np.arange(len(block)), np.diff(limits).astype(np.int64))
            once = left < right
            yield left[once], right[once], 1 - distances[once] / HASH_BITS

    return _joined(len(hashes), found())


def cosine_pairs(vectors: np.ndarray, least: float) -> Pairs:
    """Pairs of (N, D) vectors whose cosine is above `least`, reduced to a forest; a Daft plan, shuffled by cell."""
    import daft
    from daft import DataType, col

    vectors = normalised(vectors.astype(np.float32))
    centres = cells(vectors)
    if len(centres) == 1:
        return forest(len(vectors), _cell_pairs(np.arange(len(vectors)), vectors, least))
    number, width = DataType.int64(), vectors.shape[1]
    mean = vectors.mean(0)

    @daft.func.batch(return_dtype=DataType.list(number))
    def nearest(series: daft.Series) -> list[list[int]]:
        return nearest_cells(_matrix(series, width) - mean, centres).tolist()

    pair = DataType.struct({"left": number, "right": number, "similarity": DataType.float64()})

    @daft.func.batch(return_dtype=DataType.list(pair))
    def compared(numbers: daft.Series, series: daft.Series) -> list[list[dict[str, float]]]:
        found = _cell_pairs(np.asarray(numbers.to_arrow()), _matrix(series, width), least)
        names = ("left", "right", "similarity")
        columns = (found.left.tolist(), found.right.tolist(), found.similarity.tolist())
        return [[dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]]

    plan = (
        daft.from_arrow(_table(vectors))
        .with_column("cell", nearest(col("vector")))
        .explode("cell")
        .groupby("cell")
        .map_groups(compared(col("number"), col("vector")).alias("pairs"))
    )
    found = plan.select("pairs").explode("pairs").where(col("pairs").not_null()).select(col("pairs").unnest())
    pairs = found.sort(["left", "right", "similarity"]).to_arrow()
    return forest(len(vectors), Pairs.of([tuple(np.asarray(column) for column in pairs.columns)]))  # pyright: ignore


def cells(vectors: np.ndarray) -> np.ndarray:
    """Centres (C, D) of the cells of unit vectors (N, D), less their mean; the same ones every time."""
    import faiss

    count = min(MOST_CELLS, len(vectors) // VECTORS_A_CELL)
    if count <= 1:
        return np.zeros((1, vectors.shape[1]), np.float32)
    sample = np.random.default_rng(0).permutation(len(vectors))[: count * SAMPLE_A_CELL]
    centred = normalised(vectors[np.sort(sample)] - vectors.mean(0))
    kmeans = faiss.Kmeans(vectors.shape[1], count, niter=ITERATIONS, seed=1, spherical=True, min_points_per_centroid=1)
    kmeans.train(centred)
    return np.asarray(kmeans.centroids)


def nearest_cells(centred: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The cells (N, 2) that each of (N, D) centred vectors is compared in."""
    parts = [centred[start : start + BLOCK] @ centres.T for start in range(0, len(centred), BLOCK)]
    return np.concatenate([np.argpartition(-part, NEAREST_CELLS - 1, axis=1)[:, :NEAREST_CELLS] for part in parts])


def normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def forest(count: int, pairs: Pairs) -> Pairs:
    """The fewest of the pairs that join the same images, the most similar ones first.

    A thousand copies are half a million pairs, and 999 of them say all.
    """
    distance = 2 - pairs.similarity  # at least 1: a stored zero would be no edge
    unique, first = np.unique(pairs.left * count + pairs.right, return_index=True)
    graph = coo_array((distance[first], (unique // count, unique % count)), shape=(count, count)).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    return Pairs.of([(tree.coords[0], tree.coords[1], 2 - tree.data)])


def _joined(count: int, found: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Pairs:
    """The forest of all pairs found, of which no more than about MOST_PAIRS are held at a time."""
    held = Pairs.of([])
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for part in found:
        waiting.append(part)
        if sum(len(left) for left, _, _ in waiting) > MOST_PAIRS:
            held, waiting = forest(count, Pairs.of([held.arrays, *waiting])), []
    return forest(count, Pairs.of([held.arrays, *waiting]))


def components(count: int, pairs: Pairs) -> np.ndarray:
    """The component of each image, int (N,): images that a chain of pairs joins are in one."""
    graph = coo_array((np.ones(len(pairs.left)), (pairs.left, pairs.right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _cell_pairs(numbers: np.ndarray, vectors: np.ndarray, least: float) -> Pairs:
    """The pairs of one cell, exactly: `numbers` (M,) of unit `vectors` (M, D). The order of rows does not matter."""
    order = np.argsort(numbers)
    numbers, vectors = numbers[order], vectors[order]

    def found() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(vectors), BLOCK):
            for other in range(start, len(vectors), BLOCK):
                product = (vectors[start : start + BLOCK] @ vectors[other : other + BLOCK].T).round(DIGITS)
                left, right = np.nonzero(product > least)
                once = left + start < right + other
                left, right = left[once], right[once]
                yield left + start, right + other, product[left, right]

    pairs = _joined(len(vectors), found())
    return Pairs(numbers[pairs.left], numbers[pairs.right], pairs.similarity)


def _table(vectors: np.ndarray):
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table({"number": np.arange(len(vectors)), "vector": flat})


def _matrix(series, width: int) -> np.ndarray:
    return np.asarray(series.to_arrow().flatten()).reshape(-1, width)
