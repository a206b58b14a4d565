"""Words of the embedded world: two letters of three by five dots, a dot apart; a dot is DOT by DOT pixels.

A dot is as large as a cell of the autoencoder: strokes of single pixels do not survive it. Words stand on a grid as
wide as the transformer's tokens, so that each is made of the same few tokens wherever it stands.
"""

from functools import cache

import numpy as np

DOT, GRID = 2, 4
"""Pixels."""
_LETTERS = {
    "A": ".#. #.# ### #.# #.#",
    "E": "### #.. ##. #.. ###",
    "G": ".## #.. #.# #.# .##",
    "H": "#.# #.# ### #.# #.#",
    "I": "### .#. .#. .#. ###",
    "K": "#.# #.# ##. #.# #.#",
    "M": "#.# ### ### #.# #.#",
    "N": "##. #.# #.# #.# #.#",
    "O": "### #.# #.# #.# ###",
    "P": "##. #.# ##. #.. #..",
    "T": "### .#. .#. .#. .#.",
    "U": "#.# #.# #.# #.# ###",
}
WORDS = ("HI", "GO", "NO", "UP", "OK", "TO", "AT", "IT", "ME", "PA")


@cache
def written(word: str) -> np.ndarray:
    """The word's ink, 0 or 1 a pixel, as large as `word_size`. Raises KeyError for letters that WORDS does not use."""
    gap = np.zeros((5, 1))
    parts = [part for letter in word for part in (gap, np.array([[c == "#" for c in row] for row in _rows(letter)]))]
    return np.kron(np.concatenate(parts[1:], axis=1), np.ones((DOT, DOT)))


def word_size(word: str) -> tuple[int, int]:
    """(height, width) in pixels."""
    return 5 * DOT, (4 * len(word) - 1) * DOT


def _rows(letter: str) -> list[str]:
    return _LETTERS[letter].split()
