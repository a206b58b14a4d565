"""Two judges examined on the same pictures: what is planted in them is found, and what is not is not."""

from dataclasses import replace

import numpy as np
import pytest

from lens_core.records import Criterion, Prompt
from lens_core.seeds import seed_of
from lens_rl.judges.backend import Answer, Backend, Capabilities, Reply
from lens_rl.judges.comparison import compare, conduct
from lens_rl.judges.examination import Picture, examine
from lens_rl.judges.judge import RubricJudge
from lens_rl.judges.probes import negation, shuffled
from lens_rl.judges.shapes import ShapesBackend
from lens_rl.judges.store import VerdictStore
from rubrics.rubric import Rubric

CRITERIA = tuple(Criterion(f"c{n}", f"Statement {n} holds.", "odd" if n % 2 else "even") for n in range(8))


def coin(*names):
    """A uniform number in [0, 1) that depends on its names only."""
    return seed_of(*names) / 2**63


class Planted(Backend):
    """Knows the truth, a fair coin a picture and statement, and errs as told.

    `kappa`: it repeats the truth or, with probability 1 - kappa, throws a coin of its own. `yes`: share of criteria
    that it grants whatever it sees. `deaf`: share of negations that it does not hear. `first`: it grants whatever
    stands first in a request. `noise`: share of answers that are thrown anew each time. `halo`: share of answers of a
    request that copy the first. `sure`: distance of its probabilities. Judges whose names begin alike throw alike.
    """

    def __init__(self, name, *, kappa=1.0, yes=0.0, deaf=0.0, first=False, noise=0.0, halo=0.0, sure=None, at_once=8):
        self.identity, self._kappa, self._yes, self._deaf = name, kappa, yes, deaf
        self._coins = name.partition("-")[0]
        self._first, self._noise, self._halo, self._sure = first, noise, halo, sure
        self.capabilities = Capabilities(questions_per_request=at_once, probabilities=sure is not None)
        self._asked = 0

    def prepare(self, image):
        return int(image[0, 0, 0]) * 256 + int(image[0, 0, 1])

    async def answer(self, picture, questions):
        values = [self._value(picture, question, place) for place, question in enumerate(questions)]
        if self._halo:
            values = [
                values[0] if coin(self._coins, "halo", picture, place) < self._halo else value
                for place, value in enumerate(values)
            ]
        return Reply(tuple(Answer(value, p=self._p(value)) for value in values))

    def _p(self, value):
        return None if self._sure is None else 0.5 + self._sure * (value - 0.5)

    def _value(self, picture, question, place):
        negative, statement = "false" in question.user, question.criterion.name.removeprefix("not ")
        self._asked += 1
        if (self._first and place == 0) or coin(self._coins, "yes", picture, statement) < self._yes:
            return 1
        if coin(self._coins, "noise", self._asked) < self._noise:
            return int(coin(self._coins, "again", self._asked) < 0.5)
        own = coin(self._coins, "own", picture, statement) > self._kappa
        value = coin(self._coins if own else "truth", picture, statement) < 0.5
        heard = negative and coin(self._coins, "deaf", picture, statement) >= self._deaf
        return int(value != heard)


def pictures(count=120, per_prompt=4):
    def load(number):
        return lambda: np.full((8, 8, 3), (number // 256, number % 256, 0), np.uint8)

    prompts = [Prompt(f"p{n}", f"picture number {n}", criteria=CRITERIA) for n in range(count)]
    return [Picture(f"{n}", prompts[n // per_prompt], load(n)) for n in range(count)]


def examined(tmp_path, backend, count=120, probed=()):
    def open_judge(probe):
        asked = probe(backend) if probe else backend
        return RubricJudge(asked, Rubric.load("lens"), VerdictStore(tmp_path / "v.sqlite"), concurrency=8)

    return examine(open_judge, pictures(count), probed)


def test_a_planted_kappa_is_recovered_in_all_and_by_kind(tmp_path):
    a, b = examined(tmp_path, Planted("a")), examined(tmp_path, Planted("b", kappa=0.6))
    found = compare(a, b)
    assert set(found.by_kind) == {"all", "even", "odd"} and found.by_kind["all"].verdicts == 120 * 8
    for kind in found.by_kind.values():
        assert kind.kappa.low <= 0.6 <= kind.kappa.high and kind.kappa.high - kind.kappa.low < 0.25
        assert kind.pabak.value == pytest.approx(2 * kind.agreement.value - 1)
        assert kind.balanced_accuracy.value == pytest.approx(0.8, abs=0.06) and not kind.warnings
    mirrored = compare(b, a)
    assert mirrored.by_kind["all"].kappa == found.by_kind["all"].kappa


def test_an_honest_judge_passes_every_probe(tmp_path):
    found = conduct(examined(tmp_path, Planted("a"), count=60, probed=range(60)))
    assert found.yes_bias["all"].value == pytest.approx(0.5, abs=0.08), "the truth of the others is a coin too"
    assert [rates["all"].value for rates in (found.contradictions, found.repeat_flips, found.order_flips)] == [0, 0, 0]
    assert found.halo is not None and found.halo.value == 0


def test_planted_yes_bias(tmp_path):
    found = conduct(examined(tmp_path, Planted("a", yes=0.4), probed=range(0, 120, 2)))
    assert found.yes_bias["all"].low > 0.62 and found.yes_bias["all"].low <= 0.7 <= found.yes_bias["all"].high


def test_planted_deafness_to_negation(tmp_path):
    found = conduct(examined(tmp_path, Planted("a", deaf=0.3, sure=0.8), probed=range(0, 120, 2)))
    assert found.contradictions["all"].low <= 0.3 <= found.contradictions["all"].high
    # p is 0.9 or 0.1: a contradiction is |1.8 - 1| or |0.2 - 1|, anything else is 0.
    assert found.negation_distance is not None
    assert found.negation_distance.value == pytest.approx(0.8 * found.contradictions["all"].value)


def test_planted_order_bias_is_not_taken_for_noise(tmp_path):
    """Granting what comes first flips, of eight, the first and the last one where they are false: half of two."""
    found = conduct(examined(tmp_path, Planted("a", first=True), probed=range(0, 120, 2)))
    assert found.repeat_flips["all"].value == 0
    assert found.order_flips["all"].low <= 1 / 8 <= found.order_flips["all"].high


def test_planted_noise_flips_a_repeat(tmp_path):
    """Two answers, each thrown anew with probability 0.4: one of them is with 0.64, and half of those differ."""
    found = conduct(examined(tmp_path, Planted("a", noise=0.4), probed=range(120)))
    assert found.repeat_flips["all"].low <= 0.32 <= found.repeat_flips["all"].high


def test_a_planted_halo_is_found(tmp_path):
    """Copying the first answer with probability h makes any two of a request correlate, alone they do not."""
    found = conduct(examined(tmp_path, Planted("a", halo=0.6), probed=range(120)))
    pairs = (7 * 0.6 + 21 * 0.36) / 28  # seven pairs with the first, twenty-one of two copies
    assert found.halo is not None and found.halo.low > 0.2
    assert found.halo.low - 0.03 <= pairs <= found.halo.high + 0.03


def test_planted_overconfidence(tmp_path):
    truth = examined(tmp_path, Planted("a"))
    sure, modest = (
        compare(examined(tmp_path, Planted(name, kappa=0.6, sure=share)), truth)
        for name, share in (("b-sure", 1.0), ("b-modest", 0.6))
    )
    wrong = 1 - sure.by_kind["all"].agreement.value
    assert wrong == pytest.approx(0.2, abs=0.05) and sure.a.calibration and modest.a.calibration
    # Saying 0.8 or 0.2 where eight in ten are right is calibrated; saying 1 or 0 is off by as much as is wrong.
    assert modest.a.calibration.ece.value == pytest.approx(abs(wrong - 0.2), abs=0.03)
    assert sure.a.calibration.ece.value == pytest.approx(wrong) and sure.a.calibration.ece.low > 0.1
    assert sure.a.calibration.brier.value == pytest.approx(wrong)
    assert modest.a.calibration.brier.value == pytest.approx(wrong * 0.8**2 + (1 - wrong) * 0.2**2)
    assert [count for count, *_ in sure.a.calibration.bins] == [960 - (n := sure.a.calibration.bins[1][0]), n]


def test_a_judge_of_one_question_a_request_has_no_order_and_no_halo(tmp_path):
    found = conduct(examined(tmp_path, Planted("a", at_once=1), count=8, probed=range(8)))
    assert found.order_flips == {} and found.halo is None and found.repeat_flips["all"].images == 8


def test_undecided_verdicts_are_counted_and_left_out(tmp_path):
    a = examined(tmp_path, Planted("a", sure=0.9))
    b = examined(tmp_path, Planted("b", kappa=0.6, sure=0.1))
    found = compare(a, b).by_kind["all"]
    assert found.undecided == 1.0 and np.isnan(found.decided_kappa.value) and found.kappa.value > 0.5


def test_what_should_not_be_trusted_is_flagged(tmp_path):
    a, b = examined(tmp_path, Planted("a")), examined(tmp_path, Planted("b", kappa=0.1, yes=0.97))
    assert compare(a, b).by_kind["all"].warnings == ("kappa below 0.4", "B nearly always says 1")


class Failing(Planted):
    async def answer(self, picture, questions):
        reply = await super().answer(picture, questions)
        failed = coin(self._coins, "fails", picture) < 0.3
        return Reply(tuple(Answer(None, "error") if failed else answer for answer in reply.answers))


def test_errors_are_counted_and_never_taken_for_zeros(tmp_path):
    found = compare(examined(tmp_path, Planted("a")), examined(tmp_path, Failing("b", kappa=0.6)))
    all_ = found.by_kind["all"]
    assert found.b.errors > 200 and all_.verdicts == 120 * 8 - found.b.errors
    assert all_.kappa.low <= 0.6 <= all_.kappa.high and all_.yes_b.value == pytest.approx(0.5, abs=0.06)


def test_an_examination_that_was_stopped_goes_on(tmp_path):
    """Probes have names of their own in the store, so a second examination asks nothing anew, noise included."""
    backend = Planted("a", noise=0.5)
    first = examined(tmp_path, backend, count=20, probed=range(10))
    asked = backend._asked
    again = examined(tmp_path, backend, count=20, probed=range(10))
    assert backend._asked == asked
    assert again.verdicts.equals(first.verdicts) and again.probes["repeat"].equals(first.probes["repeat"])


def test_a_shuffled_prompt_is_another_one():
    prompts = [replace(picture.prompt, id=picture.name) for picture in pictures(24)]
    assert all(one.text != other.text for one, other in zip(prompts, shuffled(prompts), strict=True))
    assert sorted(p.text for p in shuffled(prompts)) == sorted(p.text for p in prompts), "each is used equally often"
    alone = prompts[:3]
    assert [p.text for p in shuffled(alone)] == [p.text for p in alone], "there is no other"


def test_the_embedded_judge_understands_negation():
    import asyncio

    from lens_rl.judges.backend import Question

    criterion = Criterion("c", "The background is white.", "background", {"kind": "background", "is": "white"})
    judge, white = ShapesBackend(), np.full((20, 20, 3), 240, np.uint8)
    contrary = negation(criterion)
    assert judge.cannot_read(contrary) is None
    assert "mauve" in (
        judge.cannot_read(negation(replace(criterion, check={"kind": "background", "is": "mauve"}))) or ""
    )
    questions = [Question(c, "", "") for c in (criterion, contrary)]
    reply = asyncio.run(judge.answer(judge.prepare(white), questions))
    assert [answer.value for answer in reply.answers] == [1, 0]
