"""Words of the embedded world: letters of three by five pixels, one pixel apart."""

from functools import cache

import numpy as np

_LETTERS = {
    "A": ".#. #.# ### #.# #.#",
    "E": "### #.. ##. #.. ###",
    "G": ".## #.. #.# #.# .##",
    "H": "#.# #.# ### #.# #.#",
    "I": "### .#. .#. .#. ###",
    "K": "#.# #.# ##. #.# #.#",
    "N": "##. #.# #.# #.# #.#",
    "O": "### #.# #.# #.# ###",
    "P": "##. #.# ##. #.. #..",
    "R": "##. #.# ##. #.# #.#",
    "S": ".## #.. .#. ..# ##.",
    "T": "### .#. .#. .#. .#.",
    "U": "#.# #.# #.# #.# ###",
    "Y": "#.# #.# .#. .#. .#.",
    "Z": "### ..# .#. #.. ###",
}
WORDS = ("HI", "GO", "NO", "UP", "YES", "SUN", "TEA", "ZOO", "ART", "KEY")


@cache
def written(word: str) -> np.ndarray:
    """The word's ink, 0 or 1 a pixel, (5, 4 * letters - 1). Raises KeyError for letters that no word of WORDS has."""
    gap = np.zeros((5, 1))
    parts = [part for letter in word for part in (gap, np.array([[c == "#" for c in row] for row in _rows(letter)]))]
    return np.concatenate(parts[1:], axis=1).astype(float)


def word_size(word: str) -> tuple[int, int]:
    """(height, width) in pixels."""
    return 5, 4 * len(word) - 1


def _rows(letter: str) -> list[str]:
    return _LETTERS[letter].split()
