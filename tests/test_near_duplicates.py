"""Near-duplicates: what was planted is found and nothing else, however the work is cut up."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.cleaning.near_duplicates import (
    HASH_BITS,
    Pairs,
    cells,
    components,
    cosine_pairs,
    forest,
    hash_pairs,
    nearest_cells,
    normalised,
)

EDGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19), st.floats(0.5, 1)), max_size=40)


def pairs_of(edges):
    edges = [(min(a, b), max(a, b), s) for a, b, s in edges if a != b]
    return Pairs.of([tuple(np.array(column) for column in zip(*edges, strict=True))] if edges else [])


def pair_set(pairs):
    return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def planted_vectors(count, width, *, seed=0):
    """Clustered unit vectors that all point one way, as those of CLIP do, and the pairs planted among them.

    A planted pair has a cosine in [0.9855, 0.999]; each image is in one pair at most.
    """
    random = np.random.default_rng(seed)
    mean, centres = 1.2 * random.normal(size=width), random.normal(size=(200, width))
    vectors = normalised(mean + centres[random.integers(200, size=count)] + 0.8 * random.normal(size=(count, width)))
    order = random.permutation(count)
    left, right = order[: count // 20], order[count // 20 : 2 * (count // 20)]
    cosine = random.uniform(0.9855, 0.999, (len(left), 1))
    aside = random.normal(size=(len(left), width))
    aside = normalised(aside - (aside * vectors[left]).sum(1, keepdims=True) * vectors[left])
    vectors[right] = cosine * vectors[left] + np.sqrt(1 - cosine**2) * aside
    return vectors.astype(np.float32), {
        (min(pair), max(pair)) for pair in zip(left.tolist(), right.tolist(), strict=True)
    }


def test_planted_pairs_are_found_and_nothing_else():
    vectors, planted = planted_vectors(12_000, 96)
    found = pair_set(cosine_pairs(vectors, 0.985))
    print(f"recall {len(found & planted) / len(planted):.4f} of {len(planted)}, false {len(found - planted)}")
    assert len(found & planted) >= 0.995 * len(planted)
    assert not found - planted


def test_the_cells_of_centred_vectors_are_small():
    """Raw vectors of this kind crowd in a few cells."""
    vectors, _ = planted_vectors(12_000, 96)
    centres = cells(vectors)
    sizes = np.bincount(nearest_cells(vectors - vectors.mean(0), centres).ravel(), minlength=len(centres))
    assert len(centres) > 40
    assert sizes.max() < 0.06 * len(vectors)


def test_a_few_vectors_are_compared_exactly():
    vectors, planted = planted_vectors(400, 32)
    assert pair_set(cosine_pairs(vectors, 0.985)) == planted
    assert not len(cosine_pairs(vectors[:1], 0.985).left)


def test_halves_are_as_good_as_whole_numbers():
    """Embeddings are stored in 16 bits."""
    vectors, planted = planted_vectors(400, 32)
    assert pair_set(cosine_pairs(vectors.astype(np.float16), 0.985)) == planted


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_hashes_are_compared_bit_by_bit(seed, most):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 256, (12, 32), dtype=np.uint8)
    for number in range(6, 12):
        bits = np.unpackbits(hashes[number - 6])
        flipped = random.choice(HASH_BITS, int(random.integers(0, 50)), replace=False)
        bits[flipped] ^= 1
        hashes[number] = np.packbits(bits)
    bits = np.unpackbits(hashes, axis=1)
    distance = (bits[:, None] != bits).sum(-1)
    expected = components(12, pairs_of([(a, b, 1.0) for a, b in np.argwhere(distance <= most)]))
    found = hash_pairs(hashes, most)
    assert (components(12, found) == expected).all()
    assert all(distance[a, b] <= most for a, b in pair_set(found))


@given(EDGES)
def test_a_forest_joins_what_all_pairs_join(edges):
    pairs = pairs_of(edges)
    few = forest(20, pairs)
    assert (components(20, few) == components(20, pairs)).all()
    assert len(few.left) == 20 - len(set(components(20, pairs).tolist()))
    assert pair_set(few) <= pair_set(pairs)


@given(EDGES, st.randoms())
def test_components_do_not_depend_on_the_order_of_pairs(edges, random):
    shuffled = edges.copy()
    random.shuffle(shuffled)
    assert (components(20, pairs_of(edges)) == components(20, pairs_of(shuffled))).all()


@pytest.mark.slow
def test_a_local_ray_cluster_finds_the_same_pairs():
    pytest.importorskip("ray")
    script = (
        "import sys; from pipelines.data.cleaning.scoring import use_engine; use_engine(sys.argv[1]);"
        "from tests.test_near_duplicates import planted_vectors, cosine_pairs;"
        "found = cosine_pairs(planted_vectors(3000, 32)[0], 0.985);"
        "print([array.tolist() for array in found.arrays])"
    )
    found = {}
    for engine in ("native", "ray"):
        done = subprocess.run([sys.executable, "-c", script, engine], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[engine] = done.stdout.splitlines()[-1]
    assert found["native"] == found["ray"] and found["ray"].count(",") > 400
