"""Templates from users' files: strict about variables, shut in, and known by a hash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_core.templates import Condition, Template, TemplateProblem


def render(source, **values):
    return Template(source, where="file.j2").render(**values)


@given(st.text(st.characters(exclude_characters="{}#%\r\n")), st.text())
def test_plain_text_and_values_come_through_unchanged(text, value):
    assert render(text) == text
    assert render("{{ value }}", value=value) == value


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ value.__init__.__globals__ }}",
        "{{ value.__class__ }}",
        "{{ ().__class__.__bases__[0].__subclasses__() }}",
        "{{ value | attr('__class__') }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ self.__init__.__globals__ }}",
        "{{ '{0.__class__}'.format(value) }}",
        "{{ items.append(1) }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_nothing_outside_the_sandbox_is_reached(source):
    items = []

    with pytest.raises(TemplateProblem, match=r"file\.j2: "):
        render(source, value="text", items=items)

    assert items == []


@pytest.mark.parametrize("source", ["{{ absent }}", "{{ absent.field }}", "{{ known.absent }}", "{{ known['x'] }}"])
def test_a_missing_variable_is_an_error(source):
    with pytest.raises(TemplateProblem, match=r"file\.j2: .*(undefined|no attribute)"):
        render(source, known={})


def test_unknown_variables_are_found_at_load():
    with pytest.raises(TemplateProblem, match="shapes, text: unknown variable colr; known here: colour, shape"):
        Template("{{ colr }} {{ shape }}", where="shapes, text", variables=["shape", "colour"])

    assert Template("{% set a = b %}{{ a }}", where="x", variables=["b"]).asks_for == {"b"}


@pytest.mark.parametrize("source", ["{{ a", "{% if a %}", "{{ a | nofilter }}", "{{ }}", "{% nosuchtag %}"])
def test_a_template_that_does_not_parse_is_an_error_at_load(source):
    with pytest.raises(TemplateProblem, match=r"file\.j2: "):
        Template(source, where="file.j2")


def test_the_hash_is_that_of_the_source():
    one, same, other = (Template(source, where="x") for source in ("{{ a }}", "{{ a }}", "{{ a }} "))

    assert one.hash == same.hash != other.hash


@given(st.integers(0, 9), st.integers(0, 9))
def test_conditions_compute(a, b):
    assert Condition("a + b <= 3 and a != b", where="x")(a=a, b=b) == (a + b <= 3 and a != b)


def test_conditions_are_as_strict_and_as_shut_in():
    assert not Condition("absent is defined", where="x")()
    with pytest.raises(TemplateProblem, match="x: 'absent' is undefined"):
        Condition("absent", where="x")()
    with pytest.raises(TemplateProblem, match="x: "):
        Condition("absent > 1", where="x")()
    with pytest.raises(TemplateProblem, match="x: "):
        Condition("''.__class__.__mro__ | length > 0", where="x")()
    with pytest.raises(TemplateProblem, match="x: "):
        Condition("a >", where="x")
    with pytest.raises(TemplateProblem, match="x: "):
        Condition("1 / a > 0", where="x")(a=0)
