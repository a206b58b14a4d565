"""A vision-language model in this process, through transformers: for small judges, and where there is no server.

It generates nothing: one forward pass a question, and the log-probabilities of "1" and "0" at the last position.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lens_rl.judges import labels
from lens_rl.judges.backend import Answer, JudgeProblem
from lens_rl.judges.in_process import InProcessBackend, Job
from lens_rl.recipe import Judge

BATCH_SIZE = 16


class TransformersBackend(InProcessBackend):
    """`judge.model` is a folder, or a name that transformers has in its cache. Loaded with the first question."""

    def __init__(self, judge: Judge):
        super().__init__(judge, batch_size=BATCH_SIZE, questions_per_request=BATCH_SIZE)
        folder = Path(self.name)
        if (folder.is_absolute() or self.name.startswith(".")) and not (folder / "config.json").is_file():
            raise JudgeProblem(f"judge.model: {self.name} is not a model folder: it has no config.json")
        self._loaded: _Loaded | None = None

    def prepare(self, image: np.ndarray) -> Image.Image:
        picture = Image.fromarray(image)
        side = self.capabilities.longest_side or max(picture.size)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture

    def answer_batch(self, jobs: Sequence[Job]) -> list[tuple[Answer, int]]:
        if self._loaded is None:
            self._loaded = _Loaded(self.name)
        return self._loaded.read(jobs)


class _Loaded:
    """Model, processor, and the ids of the two labels."""

    def __init__(self, name: str):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        try:
            self._processor: Any = AutoProcessor.from_pretrained(name)
            self._model: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise JudgeProblem(f"judge.model: transformers cannot load {name!r}: {error}") from error
        self._model.to(self._device).eval()
        tokenizer = self._processor.tokenizer
        tokenizer.padding_side = "left"  # so that the answer's place is the last one for all
        self._ids = [self._label_id(tokenizer, label, name) for label in (labels.YES, labels.NO)]

    @torch.inference_mode()
    def read(self, jobs: Sequence[Job]) -> list[tuple[Answer, int]]:
        """Answers, and the tokens of each question."""
        texts = [
            self._processor.apply_chat_template(
                [
                    {"role": "system", "content": [{"type": "text", "text": question.system}]},
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.user}]},
                ],
                add_generation_prompt=True,
            )
            for _, question in jobs
        ]
        pictures = [[picture] for picture, _ in jobs]
        inputs = self._processor(text=texts, images=pictures, padding=True, return_tensors="pt").to(self._device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(self._model.dtype)
        logits_BV = self._model(**inputs, logits_to_keep=1).logits[:, -1].float()
        logprobs_B2 = logits_BV.log_softmax(-1)[:, self._ids].tolist()
        tokens_B = inputs["attention_mask"].sum(1).tolist()
        return [(labels.from_logprobs(l1, l0), tokens) for (l1, l0), tokens in zip(logprobs_B2, tokens_B, strict=True)]

    @staticmethod
    def _label_id(tokenizer: Any, label: str, name: str) -> int:
        ids = tokenizer(label, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise JudgeProblem(f"judge.model: {label!r} is {len(ids)} tokens to {name}, and must be one")
        return ids[0]
