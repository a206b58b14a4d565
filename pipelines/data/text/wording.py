"""The caption of a picture of text: what it shows, and every text in it letter for letter."""

from collections.abc import Sequence
from random import Random

from pipelines.data.text.drawing import Block, Drawn
from taxonomy.english import indefinite, with_capital

TURNED, BLURRED = 3.0, 0.8
"""Degrees and pixels (sigma) from which people see it."""
THINGS = {"sign": "sign", "poster": "poster", "slide": "presentation slide", "screen": "app window"}
PHRASES: dict[str, tuple[str, ...]] = {
    "headline": ("It says {texts} in large {letters}.", "In large {letters} it says {texts}."),
    "title": ("Its title is {texts}, set in {letters}.", "At the top stands the title {texts} in {letters}."),
    "line": ("A smaller line reads {texts}, in {letters}.", "There is also a smaller line, {texts}, in {letters}."),
    "item": ("The points of its list are {texts}, in {letters}.", "Below, a list reads {texts}, in {letters}."),
    "label": ("Its entries are {texts}, in {letters}.", "Below stand the entries {texts} in {letters}."),
    "note": ("Small print reads {texts}, in {letters}.", "In small {letters} it adds {texts}."),
    "button": ("A button {ground}says {texts} in {letters}.", "Last comes a button {ground}with {texts} in {letters}."),
}
"""By role; a picture takes one of each."""


def captions(drawn: Drawn, random: Random) -> dict[str, list[str]]:
    """A dense caption and a brief one."""
    thing = THINGS[drawn.layout]
    if drawn.surface is None:
        opening = f"{with_capital(indefinite(thing))} whose text stands directly on {drawn.background}."
    else:
        opening = f"{with_capital(indefinite(f'{drawn.surface} {thing}'))} on {drawn.background}."
    roles = list(dict.fromkeys(block.role for block in drawn.blocks))
    said = [_say([block for block in drawn.blocks if block.role == role], random) for role in roles]
    dense = " ".join([opening, *said, *_manner(drawn, thing)])
    return {"dense": [dense], "brief": [f"{with_capital(indefinite(thing))} that says {quoted(_main(drawn).text)}."]}


def quoted(text: str) -> str:
    """In marks that the text itself does not use."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{text}\N{RIGHT DOUBLE QUOTATION MARK}" if '"' in text else f'"{text}"'


def _say(blocks: Sequence[Block], random: Random) -> str:
    first = blocks[0]
    ground = f"in {first.behind} " if first.behind else ""
    texts = _list([quoted(block.text) for block in blocks])
    letters = " or ".join(dict.fromkeys(f"{block.face.looks} letters".strip() for block in blocks))
    colours = " and ".join(dict.fromkeys(block.colour for block in blocks))
    phrase = random.choice(PHRASES[first.role])
    return phrase.format(texts=texts, letters=f"{letters} in {colours}", ground=ground)


def _main(drawn: Drawn) -> Block:
    """What a glance would read first: the headline or title, else the largest."""
    headings = [block for block in drawn.blocks if block.role in ("headline", "title")]
    return headings[0] if headings else max(drawn.blocks, key=lambda block: block.pixels)


def _manner(drawn: Drawn, thing: str) -> list[str]:
    found = []
    if abs(drawn.plane.degrees) >= TURNED:
        way = "clockwise" if drawn.plane.degrees > 0 else "anticlockwise"
        found.append(f"The {thing} is turned a little {way}.")
    if drawn.blur >= BLURRED:
        found.append("The picture is slightly blurred.")
    return found


def _list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
