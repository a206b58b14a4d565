"""The sandbox refuses whatever was published against Jinja, ends whatever would not end, and lets the rest through."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_core.branches import BranchWatch
from lens_core.meter import BUDGET
from lens_core.templates import Condition, Outside, Template, TemplateProblem
from tests.template_injections import (
    EXHAUSTING,
    HACKTRICKS,
    JINJA_ITSELF,
    PAYLOADS_ALL_THE_THINGS,
    PROBES,
    WRITE_UPS,
)

SECRET = "the secret"


class Foreign:
    """An object as a careless program might hand it to a template: with methods, globals and a secret."""

    secret = SECRET
    args = headers = application = storages = signer = None

    def __init__(self):
        self.called = False

    def foo(self):
        self.called = True
        return SECRET

    _foo = items = iteritems = update = from_pyfile = foo

    def __str__(self):
        return self.foo()

    def __getitem__(self, _):
        return self.foo()


def render(source, **values):
    return Template(source, where="file.j2").render(**values)


@pytest.mark.parametrize("payload", [*PAYLOADS_ALL_THE_THINGS, *HACKTRICKS, *JINJA_ITSELF, *WRITE_UPS])
def test_published_injections_are_refused(payload, tmp_path, monkeypatch):
    """Also where the names that they start from exist, and are objects that could be misused."""
    monkeypatch.chdir(tmp_path)
    names = ("config", "request", "messages", "users", "user", "x", "foo", "cls", "value", "a", "seq", "bar", "url_for")
    foreign = {name: Foreign() for name in names}

    with pytest.raises(TemplateProblem, match=r"file\.j2: "):
        render(payload, **foreign)
    with pytest.raises(TemplateProblem, match=r"file\.j2: "):
        Template(payload, where="file.j2", variables={"prompt"}).render(prompt="a picture")

    assert not any(one.called for one in foreign.values())
    assert list(tmp_path.iterdir()) == []


def test_the_corpora_are_as_large_as_they_are_said_to_be():
    payloads = [*PAYLOADS_ALL_THE_THINGS, *HACKTRICKS, *JINJA_ITSELF, *WRITE_UPS]

    assert len(set(payloads)) == len(payloads) >= 100


@pytest.mark.parametrize(("probe", "result"), PROBES.items())
def test_probes_only_compute(probe, result):
    assert render(probe) == result


@pytest.mark.parametrize("bomb", EXHAUSTING, ids=[bomb[:60] for bomb in EXHAUSTING])
def test_what_would_not_end_is_refused_soon(bomb):
    started = time.process_time()

    with pytest.raises(TemplateProblem, match=r"file\.j2: "):
        render(bomb)

    assert time.process_time() - started < 2.0


@pytest.mark.parametrize(
    "bomb", ["1" + " * 1000" * 40 + " > 0", "('a' * 100000) ~ ('a' * 150000) == 'a'", "10 ** 9 > 1"]
)
def test_conditions_are_bounded_too(bomb):
    with pytest.raises(Outside, match="where: "):
        Condition(bomb, where="where")()


def test_a_condition_is_one_expression():
    for source in ("1 }}{% for i in [1] %}", "1 2", "range(3)", "a.b()"):
        with pytest.raises(TemplateProblem):
            Condition(source, where="where")(a={"b": 1})


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_loops_cost_what_they_do(a, b, c):
    """Three loops in each other write a * b * c letters, or are refused before they pass the budget."""
    source = "{% for i in a %}{% for j in b %}{% for k in c %}x{% endfor %}{% endfor %}{% endfor %}"
    try:
        assert render(source, a="i" * a, b="j" * b, c="k" * c) == "x" * (a * b * c)
    except Outside:
        assert a * b * c * 4 > BUDGET / 3


def test_the_budget_is_that_of_one_rendering():
    template = Template("{{ text }}", where="x")

    assert all(len(template.render(text="x" * (BUDGET - 10))) == BUDGET - 10 for _ in range(3))
    with pytest.raises(Outside, match="takes more than 200,000"):
        template.render(text="x" * (BUDGET + 1))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for name, n in counts | items %}{{ loop.index }}. {{ name }} {{ n }}; {% endfor %}", "1. a 1; 2. b 2; "),
        ("{% for x in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% set a = 2 %}{{ a * 3 + 1 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 'ab' * 2 }}", "7 3 3 abab"),
        ("{% set a %}x{{ 1 }}{% endset %}{{ a ~ a }}", "x1x1"),
        ("{{ words['two'] | upper }} {{ words.two[1:] }} {{ ['b', 'a'] | sort | join(', ') }}", "ZWEI wei a, b"),
        ("{{ '%.2f, %s' | format(1.234, 'x') }} {{ 1234567 | thousands }} {{ 2.56 | round }}", "1.23, x 1,234,567 3.0"),
        ("{{ 'yes' if 2 in [1, 2] and not absent is defined else 'no' }}", "yes"),
        ("{{ absent | default('none') }}{{ 'a_b' | replace('_', ' ') }}", "nonea b"),
        ("{{ ['a', 'b'] | map('upper') | join }} {{ [1, 2, 3] | select('odd') | list }}", "AB [1, 3]"),
        ('{{ "ü \\"x\\"" | tojson }}', '"ü \\"x\\""'),
    ],
)  # fmt: skip
def test_what_rubrics_need_works(source, text):
    assert render(source, counts={"a": 1, "b": 2}, words={"two": "zwei"}) == text


def test_a_field_wins_over_a_method_of_the_same_name():
    assert render("{{ table.items }} {{ table.keys }}", table={"items": 3, "keys": "k"}) == "3 k"


def test_what_is_missing_in_the_sandbox_is_named_with_the_nearest():
    with pytest.raises(Outside, match=r"line 2: there is no filter 'uper' \(did you mean 'upper'\?\)"):
        render("a\n{{ 'a' | uper }}")
    with pytest.raises(Outside, match=r"line 1: Call calls something; templates use filters"):
        render("{{ 'a'.upper() }}")
    with pytest.raises(Outside, match=r"attribute 'upper' of a str is unsafe; filters do more"):
        render("{{ 'a'.upper }}")


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=4))
def test_branches_are_reached_by_what_reaches_them(values):
    watch = BranchWatch("{% if a %}1{% elif b %}2{% else %}3{% endif %}{{ 'p' if b else 'q' }}", where="x")

    texts = [watch.render(a=a, b=b) for a, b in values]

    assert texts == [("1" if a else "2" if b else "3") + ("p" if b else "q") for a, b in values]
    assert 5 - len(watch.unreached()) == len({text[0] for text in texts}) + len({text[1] for text in texts})
