"""Canaries: what they show, and that a judge that can be fooled is told from one that cannot."""

import numpy as np
import pytest

from lens_core.records import Prompt, Verdict
from lens_rl.judges.canaries import PASSES, draw_sign, granted, make_canaries
from lens_rl.judges.shapes import ShapesBackend
from lens_rl.shapes.judge import holds, look
from lens_rl.shapes.render import render
from lens_rl.shapes.scene import place
from rubrics.rubric import Rubric
from taxonomy.sampler import sample
from taxonomy.tree import load_tree


def world(count=12, size=(24, 24)):
    """Faithful pictures of drawn prompts."""
    random, rubric = np.random.default_rng(0), Rubric.load("shapes")
    shown = []
    for draw in sample(load_tree("shapes"), count, seed=3):
        prompt = Prompt(draw.id, draw.text, criteria=rubric.criteria(draw.text, draw.facts))
        shown.append((prompt, render(place(draw.facts, size, random))))
    return shown


def test_each_chosen_prompt_gets_every_kind_in_its_size():
    shown = world(size=(20, 28))
    canaries = make_canaries(shown, seed=1)
    assert [canary.kind for canary in canaries] == ["blank", "noise", "sign", "swapped"] * 4
    assert all(canary.image.shape == (20, 28, 3) and canary.image.dtype == np.uint8 for canary in canaries)
    own = {prompt.text: image for prompt, image in shown}
    for canary in canaries:
        assert not np.array_equal(canary.image, own[canary.prompt.text])
    noise = [canary.image for canary in canaries if canary.kind == "noise"]
    assert all(not np.array_equal(noise[0], other) for other in noise[1:])


def test_the_seed_decides():
    shown = world()

    def told(seed):
        return [(canary.kind, canary.prompt.id, canary.image.tobytes()) for canary in make_canaries(shown, seed=seed)]

    assert told(1) == told(1) != told(2)


def test_one_prompt_alone_has_no_picture_to_swap_with():
    (one, *_) = world()
    assert [canary.kind for canary in make_canaries([one, one], seed=0)] == ["blank", "noise", "sign"]


@pytest.mark.parametrize("size", [(1024, 1024), (512, 128), (64, 256)])
def test_the_sign_is_as_large_as_the_picture_allows_and_whole(size):
    sign = draw_sign(size)
    dark = np.argwhere(sign.min(axis=2) < 128)
    (top, left), (bottom, right) = dark.min(axis=0), dark.max(axis=0)
    height, width = size
    assert top > 0 and left > 0 and bottom < height - 1 and right < width - 1, "nothing is cut off"
    assert (right - left) / width > 0.75 or (bottom - top) / height > 0.6
    assert abs((top + bottom) / 2 - height / 2) < 0.1 * height and abs((left + right) / 2 - width / 2) < 0.1 * width


def test_errors_are_no_answers():
    (canary, *_) = make_canaries(world(), seed=0)
    verdicts = [Verdict("c", "i", "j", value, "ok" if value is not None else "error") for value in (1, None, 0, 1)]
    assert granted([(canary, verdicts)]) == {"blank": pytest.approx(2 / 3)}
    assert granted([(canary, verdicts[1:2])]) == {}


def test_the_embedded_judge_passes_none_and_grants_honest_pictures():
    shown = world(24)
    backend, counts = ShapesBackend(), {}
    for canary in [c for seed in range(6) for c in make_canaries(shown, seed=seed)]:
        seen = backend.prepare(canary.image)
        said = [int(holds(criterion.check, seen)) for criterion in canary.prompt.criteria]
        counts.setdefault(canary.kind, []).extend(said)
    assert all(np.mean(said) < PASSES for said in counts.values()), {k: np.mean(v) for k, v in counts.items()}
    honest = [holds(criterion.check, look(image)) for prompt, image in shown for criterion in prompt.criteria]
    assert np.mean(honest) > 0.95
