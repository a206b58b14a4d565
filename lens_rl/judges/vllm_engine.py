"""vLLM in this process, through `vllm.LLM`: for one machine, without a server.

vLLM pins its own torch and transformers, so it seldom fits this environment: `scripts/judge_server.sh` puts it into one
of its own, behind HTTP, and the backend is then `openai_chat` with the same answers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from lens_rl.judges import labels
from lens_rl.judges.backend import Answer, JudgeProblem, Question
from lens_rl.judges.in_process import InProcessBackend, Job
from lens_rl.judges.store import image_sha
from lens_rl.recipe import Judge

BATCH_SIZE = 512
"""Questions handed over at once; the engine schedules them itself."""
QUESTIONS_PER_REQUEST = 16


class VllmBackend(InProcessBackend):
    """Raises JudgeProblem where vLLM is not installed here."""

    def __init__(self, judge: Judge):
        super().__init__(judge, batch_size=BATCH_SIZE, questions_per_request=QUESTIONS_PER_REQUEST)
        try:
            import vllm  # type: ignore[import-not-found]
        except ImportError as error:
            raise JudgeProblem(
                "judge.backend: vllm is not installed in this environment; its pins seldom fit beside training: start "
                f"`bash scripts/judge_server.sh {self.name}` and use judge.backend=openai_chat with its "
                "judge.base_url, or pip install vllm into an environment of its own"
            ) from error
        self._vllm: Any = vllm
        self._loaded: tuple[Any, Any, list[int]] | None = None
        """The engine, how it is asked, and the ids of the two labels."""

    def prepare(self, image: np.ndarray) -> tuple[Image.Image, str]:
        """The picture, and a name by which the engine knows it again for its other questions."""
        picture = Image.fromarray(image)
        side = self.capabilities.longest_side or max(picture.size)
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture, image_sha(image)

    def answer_batch(self, jobs: Sequence[Job]) -> list[tuple[Answer, int]]:
        self._loaded = self._loaded or self._load()
        engine, sampling, ids = self._loaded
        talks = [_conversation(picture, name, question) for (picture, name), question in jobs]
        outputs = engine.chat(talks, sampling, use_tqdm=False)
        return [(_read(output, ids), len(output.prompt_token_ids)) for output in outputs]

    def _load(self) -> tuple[Any, Any, list[int]]:
        usual = {
            "max_model_len": 4096,
            "limit_mm_per_prompt": {"image": 1},
            "enable_prefix_caching": True,
            "logprobs_mode": "raw_logprobs",
            "seed": 0,
        }
        engine = self._vllm.LLM(model=self.name, **(usual | self.profile.engine))
        tokenizer = engine.get_tokenizer()
        found = [tokenizer.encode(label, add_special_tokens=False) for label in (labels.YES, labels.NO)]
        if any(len(ids) != 1 for ids in found):
            raise JudgeProblem(f'judge.model: "1" and "0" must each be one token to {self.name}')
        ids = [ids[0] for ids in found]
        return engine, self._vllm.SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=ids), ids


def _read(output: Any, ids: Sequence[int]) -> Answer:
    first = output.outputs[0].logprobs[0]
    l1, l0 = (first[token].logprob if token in first else float("-inf") for token in ids)
    return labels.from_logprobs(l1, l0)


def _conversation(picture: Image.Image, name: str, question: Question) -> list[dict[str, Any]]:
    content = [
        {"type": "image_pil", "image_pil": picture, "uuid": name},
        {"type": "text", "text": question.user},
    ]
    return [{"role": "system", "content": question.system}, {"role": "user", "content": content}]
