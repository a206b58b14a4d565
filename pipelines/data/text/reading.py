"""Can the text be read? rapidocr's own models, which come inside its package, look at the finished picture.

They know Latin letters, Chinese and Japanese. A text with any other letter is not checked, and never counts as read.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.data.needs import need


@dataclass(frozen=True, slots=True)
class Read:
    """Of the words that were asked for, or of the letters where words have no spaces: how many are read back."""

    asked: int
    found: int
    texts: tuple[str, ...]
    """What the reader saw, a line each."""

    @property
    def share(self) -> float:
        return self.found / self.asked if self.asked else 1.0


class Reader:
    """Raises RunProblem where rapidocr is not installed."""

    def __init__(self) -> None:
        need("reading pictures", "text", "rapidocr", "onnxruntime")
        from rapidocr import RapidOCR

        self._ocr: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )
        self._alphabet = frozenset("".join(self._ocr._load_rec_model().postprocess_op.character[1:]))

    def unknown(self, text: str) -> str:
        """The letters of a text that the models were never taught."""
        letters = dict.fromkeys(unicodedata.normalize("NFC", text))
        return "".join(c for c in letters if unicodedata.category(c)[0] in "LMN" and c not in self._alphabet)

    def read(self, image: np.ndarray) -> tuple[str, ...]:
        """The lines in a picture, uint8 RGB (H, W, 3)."""
        return tuple(self._ocr(np.ascontiguousarray(image[..., ::-1])).txts or ())

    def check(self, image: np.ndarray, asked: Sequence[str], *, spaced: bool) -> Read:
        """Look for every text in a picture."""
        seen = self.read(image)
        wanted, found = (Counter(part for text in texts for part in _parts(text, spaced)) for texts in (asked, seen))
        return Read(wanted.total(), (wanted & found).total(), seen)


def _parts(text: str, spaced: bool) -> list[str]:
    """Words without the punctuation around them, or letters; one spelling of what looks the same."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    if not spaced:
        return [letter for letter in plain if letter.isalnum()]
    words = ("".join(c for c in word if c.isalnum()) for word in plain.split())
    return [word for word in words if word]
