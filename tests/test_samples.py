"""What is kept of an evaluation is what was seen, and the extremes are the extremes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from lens_core.records import Criterion, Prompt, Sample, Verdict
from lens_core.runs import RunProblem
from lens_rl import samples
from lens_rl.evaluation import Scores
from lens_rl.rollout import Order

CRITERIA = (
    Criterion("count", "There is <one> circle.", "count"),
    Criterion("whole", "It is whole\u2028and clean.", "structure"),
)
REWARDS = arrays(float, (9, 2), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, np.nan]))


def scores(reward_PG, size=(16, 24), seed=0):
    """As an evaluation of random pictures would give them; the second criterion of the first picture is an error."""
    random = np.random.default_rng(seed)
    made = []
    for group, rewards in enumerate(reward_PG):
        prompt = Prompt(f"p{group}", f"prompt {group}", criteria=CRITERIA)
        for index in range(len(rewards)):
            image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            second = (
                Verdict("whole", "", "", None, "timeout") if (group, index) == (0, 0) else Verdict("whole", "", "", 0)
            )
            order = Order(prompt, group, index, size, seed=100 * group + index)
            made.append(
                (order, Sample(prompt.id, image, None, size, order.seed), (Verdict("count", "", "", 1), second))
            )
    return Scores(np.asarray(reward_PG, dtype=float), {}, 0.1, 1, 2, made)


def test_a_validation_comes_back_as_it_was(tmp_path):
    kept = scores(np.full((8, 2), 0.5))
    samples.keep_validation(tmp_path, 30, kept)
    folder = samples.folder_of_validation(tmp_path, 30)
    back = samples.read_transcripts(folder)
    assert len(back) == 16
    for one, (order, sample, _) in zip(back, kept.made, strict=True):
        assert (one.prompt_id, one.text) == (order.prompt.id, order.prompt.text)
        assert (one.group, one.index, one.size, one.seed) == (order.group, order.index, order.size, order.seed)
        assert [answer.text for answer in one.answers] == [criterion.text for criterion in CRITERIA]
        assert (one.picture is not None) == (order.group < samples.FIRST_OF_VALIDATION)
        if one.picture:
            assert (np.asarray(Image.open(folder / one.picture)) == sample.image).all()
    assert [answer.value for answer in back[0].answers] == [1, None]
    assert back[0].answers[1].status == "timeout"
    assert (samples.rewards_PG(back) == kept.reward_PG).all()


def test_a_missing_reward_stays_missing_and_json_stays_json(tmp_path):
    samples.keep_validation(tmp_path, 0, scores([[0.5, np.nan], [np.nan, np.nan]]))
    folder = samples.folder_of_validation(tmp_path, 0)
    assert np.array_equal(
        samples.rewards_PG(samples.read_transcripts(folder)), [[0.5, np.nan], [np.nan, np.nan]], equal_nan=True
    )
    lines = (folder / "transcripts.jsonl").read_text(encoding="utf-8").strip().split("\n")
    assert all(json.loads(line, parse_constant=pytest.fail) for line in lines)


def test_a_validation_made_again_takes_the_place_of_the_first(tmp_path):
    samples.keep_validation(tmp_path, 0, scores(np.full((8, 2), 0.5)))
    samples.keep_validation(tmp_path, 0, scores(np.full((2, 1), 0.25), seed=1))
    folder = samples.folder_of_validation(tmp_path, 0)
    assert {one.reward for one in samples.read_transcripts(folder)} == {0.25}
    assert len(list(folder.glob("*.png"))) == 2


def test_large_pictures_are_kept_small(tmp_path):
    samples.keep_validation(tmp_path, 0, scores([[1.0]], size=(512, 1024)))
    (file,) = samples.folder_of_validation(tmp_path, 0).glob("0*")
    assert file.suffix == ".webp" and Image.open(file).size == (samples.LONGEST_SIDE, samples.LONGEST_SIDE // 2)


def test_of_a_test_the_first_prompts_and_the_extremes_are_kept(tmp_path):
    base = np.full((40, 3), 0.5)
    trained = base.copy()
    trained[30], trained[35] = 1.0, 0.0
    samples.keep_test(tmp_path, scores(base), scores(trained, seed=1))
    for side in ("base", "trained"):
        back = samples.read_transcripts(samples.folder_of_test(tmp_path, side))
        with_picture = {(one.group, one.index) for one in back if one.picture}
        assert len(back) == 120
        assert with_picture == {(group, index) for group in (*range(12), 30, 35) for index in range(2)}
    assert Image.open(tmp_path / "samples" / "contact-sheet.png").width > 500


@given(REWARDS, REWARDS)
def test_extremes_are_the_largest_and_the_smallest(base, trained):
    both = ~np.isnan(base) & ~np.isnan(trained)
    gain = {group: (trained - base)[group, both[group]].mean() for group in range(9) if both[group].any()}
    found = samples.extremes(base, trained)
    assert not set(found.improved) & set(found.worsened)
    assert [gain[group] for group in found.improved] == sorted((g for g in gain.values() if g > 0), reverse=True)[:4]
    assert [gain[group] for group in found.worsened] == sorted(g for g in gain.values() if g < 0)[:4]
    after = {group: trained[group, both[group]].mean() for group in gain}
    assert [after[group] for group in found.lowest] == sorted(value for value in after.values() if value < 1)[:4]


def test_a_file_that_is_no_transcript_is_named(tmp_path):
    folder = samples.folder_of_validation(tmp_path, 0)
    assert samples.read_transcripts(folder) == []
    folder.mkdir(parents=True)
    (folder / "transcripts.jsonl").write_text('{"prompt_id": "a"}\n')
    with pytest.raises(RunProblem, match=r"transcripts\.jsonl is not a file of transcripts"):
        samples.read_transcripts(folder)
