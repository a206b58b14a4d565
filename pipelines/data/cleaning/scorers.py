"""Models that score images. Any that `transformers` loads by its path, or a class of the user's own.

A scorer is a class that is made with `(model, label, device)` and called with uint8 RGB images (H, W, 3); it returns
one score an image, or as the embedder one vector. It runs in the workers, loaded once in each.
"""

import hashlib
import json
import re
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lens_core.doors import PREFIX, own_class
from lens_core.recipes import RecipeProblem, nearest
from pipelines.data.cleaning.recipe import Scorer

LONGEST = 768
"""Longest side, in pixels, of the images that scorers get; each makes its own size of them."""
HUB_NAME = re.compile(r"^[\w-][\w.-]*/[\w.-]+$")
LOCK = threading.Lock()
"""One inference at a time in a process: the model itself uses all of the device."""


class ScoresImages(Protocol):
    """What this module asks of a class of the user's own."""

    def __init__(self, model: str, label: str | None, device: str) -> None: ...

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray: ...


class Classifier:
    """Probability of a class, or of several joined by `+`; the raw output of a model that has only one."""

    def __init__(self, model: str, label: str | None, device: str):
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self._device = device
        self._processor = AutoImageProcessor.from_pretrained(model)
        self._model = _pretrained(AutoModelForImageClassification, model).to(device)
        self._places = self._find(label, model)

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (N,)."""
        import torch

        inputs = self._processor(images=list(images), return_tensors="pt").to(self._device)
        with torch.inference_mode():
            logits = self._model(**inputs).logits.float()
        if self._places is None:
            return logits[:, 0].cpu().numpy()
        return logits.softmax(-1)[:, self._places].sum(-1).cpu().numpy()

    def _find(self, label: str | None, model: str) -> list[int] | None:
        by_name = {str(name): place for place, name in self._model.config.id2label.items()}
        if label is None:
            if len(by_name) == 1:
                return None
            raise RecipeProblem(f"{model} has {len(by_name)} classes: give its label, of {', '.join(by_name)}")
        names = label.split("+")
        for name in names:
            if name not in by_name:
                raise RecipeProblem(f"{model} has no class {name!r}{nearest(name, by_name)}: {', '.join(by_name)}")
        return [int(by_name[name]) for name in names]


class Embedder:
    """The projected image embedding of CLIP, or the pooled one of SigLIP, DINOv2 and their like."""

    def __init__(self, model: str, label: str | None, device: str):
        from transformers import AutoConfig, AutoImageProcessor, AutoModel, CLIPVisionModelWithProjection

        clip = AutoConfig.from_pretrained(model).model_type == "clip"
        kind = CLIPVisionModelWithProjection if clip else AutoModel
        self._device = device
        self._processor = AutoImageProcessor.from_pretrained(model)
        self._model = _pretrained(kind, model).to(device)

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (N, D), of length 1."""
        import torch

        inputs = self._processor(images=list(images), return_tensors="pt").to(self._device)
        with torch.inference_mode():
            if hasattr(self._model, "get_image_features"):
                found = self._model.get_image_features(**inputs)
            else:
                found = self._model(**inputs)
        for name in ("image_embeds", "pooler_output"):
            found = getattr(found, name, found)
        return torch.nn.functional.normalize(found.float(), dim=-1).cpu().numpy()


def _pretrained(kind: Any, model: str) -> Any:
    """A model with all of its weights: `transformers` draws missing ones at random. Raises ValueError."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # What it would say is said here.
    try:
        found, told = kind.from_pretrained(model, output_loading_info=True)
    finally:
        logging.set_verbosity(before)
    if missing := sorted(told["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, for example {missing[0]}")
    return found.eval()


def identity(scorer: Scorer) -> str:
    """What decides the scores, as 8 hexadecimal digits: model and label, and the text of a class of the user's own."""
    parts = [scorer.model, scorer.label]
    file = Path(scorer.model.removeprefix(PREFIX).strip().rpartition(":")[0])
    if scorer.model.startswith(PREFIX) and file.is_file():
        parts.append(hashlib.sha256(file.read_bytes()).hexdigest())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def load(name: str, scorer: Scorer) -> ScoresImages:
    """The scorer of a step, loaded once a process. Raises RecipeProblem for a model that cannot be loaded."""
    with LOCK:
        return _load(name, scorer.model, scorer.label, scorer.device, identity(scorer))


@lru_cache(maxsize=8)
def _load(name: str, model: str, label: str | None, device: str, _: str) -> ScoresImages:
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    if model.startswith(PREFIX):
        return own_class(model, field=f"{name}.model")(model, label, device)
    if not Path(model).is_dir() and not HUB_NAME.match(model):
        raise RecipeProblem(f"{name}.model: there is no folder {model}; a model of the Hugging Face Hub is OWNER/NAME")
    kind = Embedder if name == "embedding" else Classifier
    try:
        return kind(model, label, device)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        if isinstance(error, RecipeProblem):
            raise RecipeProblem(f"{name}.label: {error}") from error
        raise RecipeProblem(f"{name}.model: {model} cannot be loaded: {error}") from error


def score_all(scorer: ScoresImages, images: Sequence[np.ndarray]) -> list[tuple[str, Any]]:
    """(problem, score) of each image. Where a batch fails, its images are tried one by one."""
    try:
        with LOCK:
            return [_checked(score) for score in scorer(images)]
    except Exception as error:  # Models of all kinds raise everything.
        if len(images) == 1:
            return [(f"the scorer failed: {type(error).__name__}: {error}", None)]
    return [pair for image in images for pair in score_all(scorer, [image])]


def _checked(score: np.ndarray) -> tuple[str, Any]:
    if not np.isfinite(score).all():
        return "the scorer gave no finite number", None
    return "", score
