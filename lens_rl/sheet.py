"""A contact sheet: pictures side by side, a row a prompt, its text on the left."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, TEXT_WIDTH, TEXT_COLUMNS = 12, 260, 30
PAPER, INK = "#f4f4f1", "#222222"

Row = tuple[str, Sequence[Sequence[np.ndarray]]]
"""A text, and its pictures, uint8 (H, W, 3), in blocks that stand apart."""


def draw_sheet(rows: Sequence[Row], titles: Sequence[str] = (), *, cell: int) -> Image.Image:
    """The sheet; `titles` stand over the blocks, and `cell` is the longest side of a picture on it, in pixels."""
    step = cell + MARGIN
    columns = [max(len(blocks[block]) for _, blocks in rows) for block in range(len(rows[0][1]))]
    lefts = [TEXT_WIDTH + sum(columns[:block]) * step + block * MARGIN for block in range(len(columns))]
    top = step if titles else MARGIN
    sheet = Image.new("RGB", (lefts[-1] + columns[-1] * step + MARGIN, top + len(rows) * step), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)

    for title, left in zip(titles, lefts, strict=False):
        draw.text((left, cell // 2), title, fill=INK, font=ImageFont.load_default(size=20))
    for number, (text, blocks) in enumerate(rows):
        y = top + number * step
        lines = textwrap.wrap(text, TEXT_COLUMNS, max_lines=cell // 18, placeholder=" ...")
        draw.multiline_text((MARGIN, y), "\n".join(lines), fill=INK, font=font)
        for left, pictures in zip(lefts, blocks, strict=True):
            for column, image in enumerate(pictures):
                sheet.paste(_fitted(image, cell), (left + column * step, y))

    return sheet


def _fitted(image: np.ndarray, cell: int) -> Image.Image:
    """At most `cell` pixels a side; small pictures by whole factors, so that their pixels stay crisp."""
    picture = Image.fromarray(image)
    factor = cell / max(picture.size)
    if factor >= 1:
        factor = int(factor)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((next(size), next(size)), Image.Resampling.LANCZOS)
