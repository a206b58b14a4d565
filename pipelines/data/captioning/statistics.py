"""What a set of captions is like: how long they are, and which scripts they quote."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.data.text.scripts import script_of
from rubrics.captions import Caption, repetition

BIN = 20
"""Words of a bar of the histogram."""
MEAN_OF_LENS = 109
"""Words, of the dense captions of the Lens paper (arXiv 2605.21573)."""


def statistics(texts: Sequence[str]) -> dict[str, Any]:
    """Of captions of one kind: words each (mean, percentiles, histogram), quotations by script, repetition."""
    captions = [Caption(text) for text in texts]
    lengths = np.array([len(caption.words) for caption in captions])
    scripts = Counter(script_of(text) or "none" for caption in captions for text in caption.quotations)
    return {
        "captions": len(texts),
        "words": {
            "mean": float(lengths.mean()),
            **{f"p{share}": float(np.percentile(lengths, share)) for share in (5, 50, 95)},
            "histogram": {str(start): int(n) for start, n in sorted(Counter(lengths // BIN * BIN).items())},
        },
        "quoting": sum(bool(caption.quotations) for caption in captions),
        "quotations": dict(scripts.most_common()),
        "repetition": float(np.mean([repetition(caption.words) for caption in captions])),
    }
