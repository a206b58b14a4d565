"""What a cleaning is told: thresholds, and the models that give the scores pixels cannot."""

from typing import Literal

from pydantic import Field

from lens_core.recipes import Strict


class Thresholds(Strict):
    """Where each step drops an image. Changed on a finished folder, they are applied without reading an image."""

    min_area: int = Field(384 * 384, ge=0)
    """Fewest pixels, height times width after EXIF rotation; the paper's."""
    nsfw: float = Field(0.5, ge=0, le=1)
    """Greatest probability of the scorer's label."""
    aesthetics: float = 3.0
    """Least score; the paper's, on the scale of Aesthetic Predictor v2.5, and of no other model."""
    watermark: float = Field(0.5, ge=0, le=1)
    """Greatest probability of the scorer's label."""
    sharpness: float = Field(0.04, ge=0)
    """Least Laplacian variance over grey variance, longest side 512."""
    entropy: float = Field(3.7, ge=0, le=8)
    """Fewest bits of the grey histogram."""
    underexposed: float = Field(0.4, ge=0, le=1)
    """Least `brightest`, the 99th percentile of HSV-V."""
    overexposed: float = Field(0.57, ge=0, le=1)
    """Greatest `darkest`, the 1st percentile of HSV-V."""
    cosine: float = Field(0.985, ge=0, lt=1)
    """Embeddings of a greater cosine are of near-duplicates; the paper's, for CLIP ViT-L/14."""
    hash_bits: int = Field(20, ge=0, le=127)
    """Where there is no embedder: hashes that differ in at most so many of 256 bits are of near-duplicates."""


class Scorer(Strict):
    """A model that scores images; without one its step is not run."""

    model: str = Field(min_length=1)
    """Path or name that `transformers` loads, or `python: path/to/file.py:Class`; see `scorers`."""
    label: str | None = None
    """The class whose probability is the score; classes may be joined by `+`. None: the model has one output."""
    device: str = "auto"
    """`auto` is cuda where there is one."""


class CleanRecipe(Strict):
    """All of it. The paper's models: Freepik's NSFW detector, Aesthetic Predictor v2.5, a SigLIP2 classifier (not
    released), CLIP ViT-L/14."""

    engine: Literal["native", "ray"] = "native"
    thresholds: Thresholds = Thresholds()  # pyright: ignore[reportCallIssue]
    nsfw: Scorer | None = None
    aesthetics: Scorer | None = None
    watermark: Scorer | None = None
    embedding: Scorer | None = None

    def scorers(self) -> dict[str, Scorer]:
        """The models that are there, by what they score."""
        named = {name: getattr(self, name) for name in ("nsfw", "aesthetics", "watermark", "embedding")}
        return {name: scorer for name, scorer in named.items() if scorer is not None}
