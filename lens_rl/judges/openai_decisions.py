"""A judge behind the Decisions API: one picture, many statements, a probability for each.

Criteria are sent as predicates, statements whose truth is estimated, under their names. There is no temperature, no
seed, no effort and no label mass; a question may be refused while the others are answered. Vendors round the
probabilities to two decimals, so exactly 0.5 occurs, and is a no.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lens_core.recipes import RecipeProblem
from lens_rl.judges import wording
from lens_rl.judges.backend import Answer, Capabilities, Question, Usage
from lens_rl.judges.picture import Picture
from lens_rl.judges.remote import RemoteBackend, without_value
from lens_rl.recipe import Judge

MOST_QUESTIONS = 400


class OpenAIDecisionsBackend(RemoteBackend):
    path = "/decisions"

    def __init__(self, judge: Judge):
        super().__init__(judge)
        if judge.reasoning_effort is not None:
            raise RecipeProblem("judge.reasoning_effort: the Decisions API has none; leave it out")
        shape = judge.request or "per_image"
        self.capabilities = Capabilities(
            questions_per_request=MOST_QUESTIONS if shape == "per_image" else 1,
            probabilities=True,
            longest_side=self.longest_side,
        )
        self.identity = ":".join(["openai_decisions", self.name, shape, self.picture_settings()])

    def request(self, picture: Picture, questions: Sequence[Question]) -> dict[str, Any]:
        detail = self.profile.image.detail
        image = {"type": "input_image", "image_url": picture.url} | ({"detail": detail} if detail else {})
        content = [image, {"type": "input_text", "text": self._context(questions)}]
        return {
            "model": self.name,
            "input": [{"role": "system", "content": questions[0].system}, {"role": "user", "content": content}],
            "questions": [
                {"type": "predicate", "name": question.criterion.name, "instructions": question.criterion.text}
                for question in questions
            ],
        }

    def read(self, body: Mapping[str, Any], questions: Sequence[Question]) -> tuple[Answer, ...]:
        names = [question.criterion.name for question in questions]
        answered = {answer["name"]: answer for answer in body["answers"]}
        if len(body["answers"]) != len(names) or set(answered) != set(names):
            return without_value("invalid", len(questions))
        return tuple(_read_one(answered[name]) for name in names)

    def tokens(self, body: Mapping[str, Any]) -> Usage:
        try:
            usage = body["usage"]
            details = usage.get("input_tokens_details") or {}
            cached, written = int(details.get("cached_tokens") or 0), int(details.get("cache_write_tokens") or 0)
            fresh = int(usage["input_tokens"]) - cached - written
            return Usage(0, max(fresh, 0), cached, written, int(usage.get("output_tokens") or 0))
        except (AttributeError, KeyError, TypeError, ValueError):
            return Usage(unreported=1)

    def most_tokens(self, questions: Sequence[Question]) -> tuple[int, int]:
        stated = sum(len((q.criterion.name + q.criterion.text).encode()) + 16 for q in questions)
        return len((questions[0].system + self._context(questions)).encode()) + stated, 0

    def _context(self, questions: Sequence[Question]) -> str:
        """What the rubric's template says of the picture before it comes to a criterion: the prompt."""
        shared = wording.shared_lines([question.user for question in questions])
        return shared.head.strip() or questions[0].user


def _read_one(answer: Mapping[str, Any]) -> Answer:
    if answer["type"] == "refusal":
        return Answer(None, "refusal")
    p = answer.get("probability")
    if answer["type"] != "predicate" or isinstance(p, bool) or not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
        return Answer(None, "invalid")
    return Answer(int(p > 0.5), p=float(p))
