"""Shards to batches: WebDataset tars read through megatron-energon, held in memory as latents.

Small corpora are decoded and encoded once; every batch is then a function of the seed and the step,
so a resumed run sees the same samples without any loader state. One bucket a batch.

Shapes: B samples of a batch, N image tokens, C token channels.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    Sample,
    SkipSample,
    WorkerConfig,
    basic_sample_keys,
    edataclass,
    get_loader,
    get_val_dataset,
    stateless,
)
from PIL import Image
from torch import Tensor

from lens_core.records import Size
from lens_core.seeds import seed_of

ENCODE_BATCH = 256
PICTURES = ("png", "jpg", "jpeg", "webp")
BAD_SAMPLE = (OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, Image.DecompressionBombError)
"""What a damaged picture or description raises; Pillow reports some broken PNGs as a SyntaxError."""


class ShardProblem(ValueError):
    """Shards that cannot be trained on: says which folder and what to do."""


@edataclass
class CaptionedImage(Sample):
    """A decoded sample: uint8 RGB (H, W, 3) and captions by kind."""

    image: np.ndarray
    captions: dict[str, list[str]]


def decode(crude: dict[str, Any]) -> CaptionedImage:
    """Bytes of a shard to a sample. Raises SkipSample with the reason for a picture or caption that is no use."""
    try:
        suffix = next((name for name in PICTURES if name in crude), None)
        if suffix is None:
            raise ValueError(f"no picture ({', '.join(PICTURES)})")
        image = np.asarray(Image.open(BytesIO(crude[suffix])).convert("RGB"))
        captions = json.loads(crude["json"])["captions"]
        if not any(captions.values()):
            raise ValueError("no caption")
    except BAD_SAMPLE as error:
        raise SkipSample(f"{type(error).__name__}: {error}") from error
    return CaptionedImage(**basic_sample_keys(crude), image=image, captions=captions)


class _TaskEncoder(DefaultTaskEncoder):
    """Hands decoded samples through one by one; writes down the name and reason of those it leaves out."""

    decoder = None

    def __init__(self, skipped: list[str]):
        super().__init__()
        self._skipped = skipped
        self.cookers = (Cooker(self._cook),)

    @stateless
    def _cook(self, crude: dict[str, Any]) -> CaptionedImage:
        try:
            return decode(crude)
        except SkipSample as reason:
            self._skipped.append(f"{crude['__key__']}: {reason}")
            raise

    def batch(self, samples: list[CaptionedImage]) -> list[CaptionedImage]:
        return samples


def read_samples(folder: Path, split: str, *, skipped: list[str] | None = None) -> Iterator[CaptionedImage]:
    """Every sample of a split once, in the order of the shards. Raises ShardProblem where there are no shards.

    Samples that cannot be decoded are left out; `skipped` receives a line "name: reason" for each.
    """
    if not (folder / ".nv-meta").is_dir():
        raise ShardProblem(f"{folder} holds no indexed shards; make them with `lens-rl pretrain` or `energon prepare`")
    dataset = get_val_dataset(
        str(folder),
        split_part=split,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=ENCODE_BATCH,
        task_encoder=_TaskEncoder([] if skipped is None else skipped),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pin_memory.*")  # asked for by energon, of no use on a CPU
        loader = iter(get_loader(dataset))
    for batch in loader:
        yield from batch


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Clean latents and texts of one bucket; an empty text stands for no text tokens at all."""

    x0_BNC: Tensor
    texts: list[str]
    size: Size


class LatentSet:
    """A corpus in memory: latents by bucket, captions beside them."""

    def __init__(self, samples: Iterator[CaptionedImage], encode: Callable[[np.ndarray], Tensor]):
        images: dict[Size, list[np.ndarray]] = {}
        self._captions: dict[Size, list[dict[str, list[str]]]] = {}
        for sample in samples:
            size = (sample.image.shape[0], sample.image.shape[1])
            images.setdefault(size, []).append(sample.image)
            self._captions.setdefault(size, []).append(sample.captions)
        if not images:
            raise ShardProblem("the shards hold no sample that can be read")
        self._latents = {
            size: torch.cat([encode(np.stack(part)) for part in _chunks(pictures, ENCODE_BATCH)])
            for size, pictures in sorted(images.items())
        }
        self._captions = dict(sorted(self._captions.items()))

    def __len__(self) -> int:
        return sum(len(latents) for latents in self._latents.values())

    def batch(self, step: int, *, size: int, seed: int, dense_share: float = 1.0, no_text_share: float = 0.0) -> Batch:
        """The batch of `step`: a bucket drawn by its share of the corpus, then samples of it, none twice.

        `dense_share` of the texts are dense captions, the others brief; `no_text_share` have none.
        """
        random = np.random.default_rng(seed_of(seed, "batch", step))
        buckets = list(self._latents)
        shares = np.array([len(self._latents[bucket]) for bucket in buckets], dtype=float)
        bucket = buckets[random.choice(len(buckets), p=shares / shares.sum())]
        latents, captions = self._latents[bucket], self._captions[bucket]
        rows = random.choice(len(latents), size=min(size, len(latents)), replace=False)
        texts = [_caption(captions[row], random, dense_share, no_text_share) for row in rows]
        return Batch(latents[torch.from_numpy(rows)], texts, bucket)

    def batches(self, size: int, *, seed: int) -> Iterator[Batch]:
        """Every sample once, with its first dense caption: for validation."""
        for bucket, latents in self._latents.items():
            for rows in _chunks(list(range(len(latents))), size):
                texts = [_all_captions(self._captions[bucket][row])[0] for row in rows]
                yield Batch(latents[rows], texts, bucket)


def _caption(captions: dict[str, list[str]], random: np.random.Generator, dense: float, none: float) -> str:
    """One caption of a sample. The same number of draws whatever comes out, so streams stay aligned."""
    drop, kind, place = random.random(3)
    if drop < none:
        return ""
    choices = captions.get("dense" if kind < dense else "brief") or _all_captions(captions)
    return choices[int(place * len(choices))]


def _all_captions(captions: dict[str, list[str]]) -> list[str]:
    return [text for kind in ("dense", "brief", *captions) for text in captions.get(kind, [])]


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
