"""Statistics of a prompt set as one HTML page that needs nothing else: bars and a heat table."""

from collections.abc import Iterable, Mapping
from html import escape

from lens_core.records import Prompt
from taxonomy.statistics import MOST_COMMON, Statistics, mean

_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d2733, #e6e9ee); --paper: light-dark(#ffffff, #14181d);
        --bar: light-dark(#3b6ea8, #6fa3dc); --line: light-dark(#d9dee5, #333b45); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem;
       margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 0 2.5rem; }
.bars { display: grid; grid-template-columns: fit-content(62%) 1fr max-content; gap: .15rem .7rem;
        align-items: center; }
.bars i { display: block; height: .75rem; min-width: 1px; background: var(--bar); border-radius: 2px; }
.bars b { font-weight: normal; } .bars span { text-align: right; font-variant-numeric: tabular-nums; }
.tall { display: flex; align-items: flex-end; gap: 2px; height: 8rem; border-bottom: 1px solid var(--line); }
.tall div { flex: 1; background: var(--bar); min-height: 1px; } .ends { display: flex; justify-content: space-between; }
table { border-collapse: collapse; } th { text-align: left; font-weight: normal; padding: .2rem .8rem .2rem 0; }
td { text-align: right; padding: .2rem .7rem; font-variant-numeric: tabular-nums; border: 1px solid var(--line); }
li { margin-bottom: .7rem; } small { opacity: .7; }
"""


def coverage_page(title: str, found: Statistics, examples: Iterable[Prompt] = ()) -> str:
    """The whole page. `examples` are shown with their criteria."""
    sections = [
        f"<h1>{escape(title)}</h1><p>{found.prompts:,} prompts, {mean(found.words_each):.1f} words and "
        f"{mean(found.criteria_each):.1f} criteria each, on {mean(found.dimensions_each):.2f} dimensions.</p>",
        "<div class=grid>" + _section("Categories", _bars(found.categories)),
        _section("Kinds of criteria", _bars(dict(found.kinds.most_common()))) + "</div>",
        _section("Share of prompts that describe a dimension", _heat(found)),
        "<div class=grid>" + _section("Words of a prompt", _histogram(found.words_each)),
        _section("Dimensions of a prompt", _histogram(found.dimensions_each)),
        _section("Criteria of a prompt", _histogram(found.criteria_each)) + "</div>",
        "<div class=grid>",
        *(_section(category, _bars(counts)) for category, counts in found.sub_categories.items()),
        "</div><div class=grid>",
        *(_section(name, _bars(dict(counts.most_common(MOST_COMMON)))) for name, counts in found.values.items()),
        "</div>",
        _section("Some prompts", "<ul>" + "".join(map(_example, examples)) + "</ul>"),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style>\n" + "\n".join(sections) + "\n</html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _bars(counts: Mapping[str, int]) -> str:
    most = max(counts.values(), default=1)
    rows = (
        f'<b>{escape(name)}</b><i style="width:{100 * n / most:.1f}%"></i><span>{n:,}</span>'
        for name, n in counts.items()
    )
    return f"<div class=bars>{''.join(rows)}</div>"


def _histogram(counts: Mapping[int, int]) -> str:
    if not counts:
        return ""
    most, first, last = max(counts.values()), min(counts), max(counts)
    bars = "".join(
        f'<div style="height:{100 * counts.get(value, 0) / most:.1f}%" title="{value}: {counts.get(value, 0):,}"></div>'
        for value in range(first, last + 1)
    )
    return f"<div class=tall>{bars}</div><div class=ends><span>{first}</span><span>{last}</span></div>"


def _heat(found: Statistics) -> str:
    names = found.all_dimensions()
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{escape(category)}</th>"
        + "".join(_cell(found.dimensions[category][name] / found.categories[category]) for name in names)
        + "</tr>"
        for category in found.categories
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _cell(share: float) -> str:
    return f'<td style="background:color-mix(in srgb, var(--bar) {70 * share:.0f}%, transparent)">{share:.0%}</td>'


def _example(prompt: Prompt) -> str:
    about = ", ".join([prompt.category, *prompt.dimensions])
    names = "; ".join(criterion.name for criterion in prompt.criteria)
    return f"<li>{escape(prompt.text)}<br><small>{escape(about)} &middot; {escape(names)}</small></li>"
