"""Profiles are data: each shipped one loads, is found by its models, and says what its model cannot do."""

from datetime import date, timedelta

import pytest

from lens_core.recipes import RecipeProblem
from lens_rl.judges import BACKENDS, open_backend, profiles
from lens_rl.judges.backend import JudgeProblem
from lens_rl.recipe import Judge

SHIPPED = sorted(file.stem for file in profiles.PROFILES.glob("*.yaml"))
LOCAL = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_found_by_its_models_and_opens(name):
    profile = profiles.load_profile(name)
    assert set(profile.backends) <= set(BACKENDS)
    for model in profile.models:
        assert profiles.profile_name(Judge(model=model)) == name
    for backend in set(profile.backends) & {"openai_chat", "openai_decisions"}:
        opened = open_backend(Judge(backend=backend, profile=name, model="m", base_url=LOCAL))
        assert opened.model == "m" and opened.capabilities.longest_side == profile.image.longest_side


def test_no_model_has_two_profiles_and_no_model_is_named_in_python():
    named = [model for name in SHIPPED for model in profiles.load_profile(name).models]
    assert len(named) == len(set(named))
    for file in profiles.PROFILES.parent.glob("*.py"):
        source = file.read_text(encoding="utf-8")
        assert not [model for model in named if f'"{model}"' in source], file.name


def test_an_unlisted_model_is_generic_and_a_profile_brings_its_model():
    assert profiles.profile_name(Judge(model="nobody/knows")) == "generic"
    assert profiles.model_name(Judge(profile="gpt-6-luna")) == "gpt-6-luna"


def test_a_profile_of_ones_own_by_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("backends: [openai_chat]\nrequest: per_image\nimage: {longest_side: 300, most_tokens: 10}\n")
    with pytest.raises(RecipeProblem, match=r"judge\.request: openai_chat takes one criterion a request"):
        open_backend(Judge(profile=str(path), model="m", base_url=LOCAL, request="per_image"))
    opened = open_backend(Judge(profile=str(path), model="m", base_url=LOCAL, request="per_criterion"))
    assert not opened.capabilities.probabilities and opened.capabilities.longest_side == 300


@pytest.mark.parametrize(
    "section, message",
    [
        ({"profile": "gpt-4.1-mimi"}, r"unknown profile 'gpt-4.1-mimi' \(did you mean 'gpt-4.1-mini'\?\)"),
        ({"model": "gpt-4.1-mini", "backend": "openai_decisions"}, r"judge\.backend: profile gpt-4.1-mini cannot be"),
        ({"model": "gpt-4.1-mini", "longest_side": 4096}, r"judge\.longest_side: 4096 .* over the limit .* 768"),
        ({"model": "gpt-4.1-mini", "reasoning_effort": "low"}, r"judge\.reasoning_effort: 'low': .* takes none"),
        ({"model": "gpt-6-luna", "reasoning_effort": "lo"}, r"judge\.reasoning_effort.*did you mean 'low'"),
        ({"model": "gpt-4.1-mini", "probabilities": True}, r"judge\.probabilities: openai_chat has none"),
        ({"model": "gpt-6-luna", "backend": "openai_decisions", "reasoning_effort": "low"}, "Decisions API has none"),
        ({"model": "gpt-6-luna", "reasoning_effort": "low", "probabilities": True, "request": "per_criterion"},
         r"judge\.probabilities: openai_chat has none"),
        ({"backend": "shapes", "reasoning_effort": "low"}, r"judge\.reasoning_effort: shapes has none"),
        ({"backend": "shapes", "probabilities": True}, r"judge\.probabilities: shapes has none"),
        ({"backend": "openai_chatt"}, r"unknown backend 'openai_chatt' \(did you mean 'openai_chat'\?\)"),
    ],
)  # fmt: skip
def test_what_is_asked_of_a_judge_that_lacks_it_is_named_with_the_field(section, message):
    with pytest.raises((RecipeProblem, JudgeProblem), match=message):
        open_backend(Judge(**section))


def test_other_settings_are_another_judge():
    """Stored verdicts are kept by identity: whatever may change an answer is in it."""
    common = {"model": "gpt-6-luna", "backend": "openai_chat"}
    settings = [{}, {"request": "per_criterion"}, {"longest_side": 512}, {"reasoning_effort": "low"},
                {"model": "m", "base_url": LOCAL}, {"backend": "openai_decisions"}]  # fmt: skip
    identities = [open_backend(Judge(**(common | changes))).identity for changes in settings]
    assert len(set(identities)) == len(identities)
    elsewhere = open_backend(Judge(**common, base_url=LOCAL, timeout_seconds=3.0, concurrency=2))
    assert elsewhere.identity == identities[0]


def test_a_model_whose_days_are_counted():
    judge = Judge(model="gpt-4.1-mini")
    end = profiles.load_profile("gpt-4.1-mini").shutdown
    assert end is not None and end.date == date(2027, 1, 14)
    (text,) = profiles.warnings(judge, end.date - timedelta(days=50))
    assert "14 January 2027" in text and "in 50 days" in text and end.successor in text
    profiles.refuse_gone(judge, end.date - timedelta(days=1))
    with pytest.raises(RecipeProblem, match=f"use its successor {end.successor}"):
        profiles.refuse_gone(judge, end.date)
    profiles.refuse_gone(Judge(model="gpt-4.1-mini", base_url=LOCAL), end.date)
    assert profiles.load_profile(end.successor).shutdown is None
    assert profiles.warnings(Judge(backend="shapes", model="gpt-4.1-mini"), end.date) == []


@pytest.mark.parametrize(
    "field, value",
    [
        ("base_url", "http://me:secret@host/v1"),
        ("base_url", "http://host/v1?key=secret"),
        ("base_url", "host:8000/v1"),
        ("api_key_env", "sk-secret-1"),
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(field, value, tmp_path):
    from lens_core.recipes import load_recipe

    (tmp_path / "judge.yaml").write_text("backend: openai_chat\n")
    with pytest.raises(RecipeProblem, match=field) as problem:
        load_recipe(Judge, tmp_path / "judge.yaml", [f"{field}={value}"])
    assert "secret" not in str(problem.value)
