"""The rubric judge around backends of ours: what it asks again, what it keeps, and when it stops asking."""

import asyncio
import threading
from concurrent.futures import wait

import numpy as np
import pytest

from lens_core.records import Criterion, Prompt
from lens_rl.judges.backend import Answer, Backend, Capabilities, JudgeProblem, Reply, Usage
from lens_rl.judges.judge import ATTEMPTS, RubricJudge
from lens_rl.judges.store import VerdictStore
from lens_rl.recipe import Price
from tests.judging import CRITERIA, PROMPT, RUBRIC, ledger, pictures, stored

NAMES = [criterion.name for criterion in PROMPT.criteria]


class Scripted(Backend):
    """Answers with `say(name, how often it was asked)`; costs a cent a request."""

    model = "scripted"
    identity = "scripted"

    def __init__(self, say, questions_per_request=CRITERIA):
        self.say, self.requests, self.times = say, [], {}
        self.capabilities = Capabilities(questions_per_request=questions_per_request)

    async def answer(self, picture, questions):
        names = [question.criterion.name for question in questions]
        self.requests.append(names)
        await asyncio.sleep(0)
        answers = []
        for name in names:
            self.times[name] = self.times.get(name, 0) + 1
            answers.append(self.say(name, self.times[name]))
        return Reply(tuple(answers), Usage(1, input_tokens=1000))

    def worst_case(self, picture, questions):
        return Usage(1, input_tokens=1000)


@pytest.fixture
def opened(tmp_path):
    judges = []

    def open_one(backend, **settings):
        store = VerdictStore(tmp_path / "v.sqlite")
        settings = {"concurrency": 4, "price": Price(input=10.0, output=0.0)} | settings
        judges.append(RubricJudge(backend, RUBRIC, store, **settings))
        return judges[-1]

    yield open_one
    for judge in judges:
        if not judge._loop.is_closed():
            judge.close()


def test_only_what_has_no_answer_yet_is_asked_again(opened, tmp_path):
    def say(name, times):
        if name in ("c2", "c7"):
            return Answer(None, "refusal") if times < 2 else Answer(0)
        return Answer(None, "invalid") if name == "c5" else Answer(1)

    backend = Scripted(say)
    judge = opened(backend)
    (verdicts,) = judge.collect([(PROMPT, judge.submit(PROMPT, pictures(1)[0]))], "the test")
    assert backend.requests == [NAMES, ["c2", "c5", "c7"], ["c5"]] and len(backend.requests) == ATTEMPTS
    assert [verdict.criterion for verdict in verdicts] == NAMES
    expected = {"c2": 0, "c7": 0, "c5": None}
    assert [verdict.value for verdict in verdicts] == [expected.get(name, 1) for name in NAMES]
    by_name = {verdict.criterion: verdict for verdict in verdicts}
    assert by_name["c0"].cost == pytest.approx(0.01 / 10) and by_name["c2"].cost == pytest.approx(0.01 / 3)
    assert ledger(tmp_path / "v.sqlite")["cost"] == pytest.approx(0.03)


def test_what_the_transport_gave_up_is_not_asked_again_until_the_next_start(opened):
    backend = Scripted(lambda name, times: Answer(None, "timeout") if name == "c1" and times == 1 else Answer(1), 3)
    judge = opened(backend)
    (first,) = judge.collect([(PROMPT, judge.submit(PROMPT, pictures(1)[0]))], "the test")
    assert [verdict.status for verdict in first] == ["ok", "timeout", *["ok"] * 8]
    assert sorted(backend.requests) == [NAMES[:3], NAMES[3:6], NAMES[6:9], NAMES[9:]]
    judge.close()
    judge = opened(backend)
    (second,) = judge.collect([(PROMPT, judge.submit(PROMPT, pictures(1)[0]))], "the test")
    assert backend.requests[4:] == [["c1"]] and all(verdict.value == 1 for verdict in second)
    assert [verdict.cached for verdict in second] == [name != "c1" for name in NAMES]


def test_an_answer_too_few_is_the_backends_fault_and_says_so(opened):
    class Short(Scripted):
        async def answer(self, picture, questions):
            return Reply((Answer(1),))

    judge = opened(Short(None))
    with pytest.raises(JudgeProblem, match="'scripted' gave 1 answers to 10 questions"):
        judge.submit(PROMPT, pictures(1)[0]).result(timeout=10)


def test_after_a_problem_that_nothing_survives_no_request_goes_out(opened, tmp_path):
    class Rejected(Scripted):
        async def answer(self, picture, questions):
            self.requests.append(questions)
            await asyncio.sleep(0.05)
            raise JudgeProblem("judge.api_key_env: rejected")

    backend = Rejected(None)
    judge = opened(backend, concurrency=2)
    futures = [judge.submit(PROMPT, image) for image in pictures(20)]
    wait(futures, timeout=30)
    assert all("rejected" in str(future.exception(timeout=0)) for future in futures)
    assert len(backend.requests) <= 2
    counted = ledger(tmp_path / "v.sqlite")
    assert counted["cost"] == 0.0 and counted["lost"] == 0, "who is turned away pays nothing"


def test_the_questions_of_a_prompt_are_rendered_for_each_prompt_object(opened):
    """Two prompts of one id are two prompts: their questions never mix, however long the first is remembered."""
    backend = Scripted(lambda name, times: Answer(1))
    judge = opened(backend)
    image = pictures(1)[0]
    for text in ("There is one.", "There is none."):
        prompt = Prompt("p", "a circle", criteria=(Criterion("same name", text, "k"),))
        (verdict,) = judge.submit(prompt, image).result(timeout=10)
        assert not verdict.cached
    assert len(backend.requests) == 2


@pytest.mark.parametrize("grace, lost", [(0.1, 1), (5.0, 0)])
def test_closing_waits_a_little_and_charges_what_is_lost(opened, tmp_path, monkeypatch, grace, lost):
    monkeypatch.setattr("lens_rl.judges.judge.GRACE_SECONDS", grace)
    slow = threading.Event()

    class Slow(Scripted):
        async def answer(self, picture, questions):
            if questions[0].criterion.name == "c9":
                slow.set()
                await asyncio.sleep(1.0)
            return await super().answer(picture, questions)

    judge = opened(Slow(lambda name, times: Answer(1), 3))
    judge.submit(PROMPT, pictures(1)[0])
    assert slow.wait(10)
    judge.close()
    counted = ledger(tmp_path / "v.sqlite")
    assert counted["rows"] == 4 and counted["lost"] == counted["unreported"] == lost
    assert counted["cost"] == pytest.approx(0.04)
    assert len(stored(tmp_path / "v.sqlite")) == 10 - lost


def test_a_free_judge_has_no_ledger_and_no_look_before_the_run_costs(opened, tmp_path):
    class Free(Scripted):
        model = None

    judge = opened(Free(lambda name, times: Answer(1)))
    judge.rehearse(PROMPT, np.zeros((8, 8, 3), np.uint8), images=4)
    judge.step = 3
    (verdicts,) = judge.collect([(PROMPT, judge.submit(PROMPT, pictures(1)[0]))], "the test")
    assert {verdict.cost for verdict in verdicts} == {0.0} and judge.cost() == 0.0
    assert ledger(tmp_path / "v.sqlite")["rows"] == 0
