"""Texts that say nearly the same: within a set by MinHash, and against benchmarks by what they contain.

A text is the set of its word triples. Two prompts are near-duplicates at a Jaccard similarity of `BOUND` and more.
MinHash finds the candidates, and the similarity itself decides; with its bands, a pair exactly at the bound is
overlooked once in 270 times, one at 0.6 once in 27,000, one at 0.7 once in 46 million.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from datasketch import MinHash, MinHashLSH

BOUND = 0.5
LEAK_BOUND = 0.8
"""Share of a benchmark prompt's word triples in a prompt from which on it has leaked."""
BANDS, ROWS = 42, 3

Triples = frozenset[tuple[str, ...]]


class NearDuplicates:
    """Texts so far; says which of them a new one comes too near."""

    def __init__(self) -> None:
        self._index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        # Seed and scheme are given, so that another version of the library does not choose others.
        self._blank = MinHash(num_perm=BANDS * ROWS, seed=1, scheme="affine32")
        self._triples: dict[str, Triples] = {}

    def nearest(self, text: str) -> str | None:
        """The key of a text at the bound or nearer, if there is one."""
        triples = word_triples(text)
        candidates = map(str, self._index.query(self._sketch(triples)))
        near = [(jaccard(triples, self._triples[key]), key) for key in candidates]
        similarity, key = max(near, default=(0.0, ""))
        return key if similarity >= BOUND else None

    def add(self, key: str, text: str) -> None:
        self._triples[key] = word_triples(text)
        self._index.insert(key, self._sketch(self._triples[key]))

    def _sketch(self, triples: Triples) -> MinHash:
        sketch = self._blank.copy()
        sketch.update_batch(" ".join(triple).encode() for triple in sorted(triples))
        return sketch


class Leakage:
    """Benchmark prompts, which no training prompt may contain."""

    def __init__(self, texts: Iterable[str]):
        self._sizes: dict[str, int] = {}
        self._holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for text in texts:
            triples = word_triples(text)
            self._sizes[text] = len(triples)
            for triple in triples:
                self._holders[triple].append(text)

    def leaked(self, text: str) -> str | None:
        """A benchmark prompt of which the text holds `LEAK_BOUND` of the word triples, if there is one."""
        shared = Counter(holder for triple in word_triples(text) for holder in self._holders.get(triple, ()))
        return next((holder for holder, n in shared.most_common() if n >= LEAK_BOUND * self._sizes[holder]), None)


def word_triples(text: str) -> Triples:
    """Every three words that follow each other, without capitals and punctuation; all words of a shorter text."""
    words = re.findall(r"[\w'-]+", text.casefold())
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset({tuple(words)})


def jaccard(one: Triples, other: Triples) -> float:
    return len(one & other) / len(one | other)
