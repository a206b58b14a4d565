"""The fonts that tests draw with: those that come with matplotlib, which every machine can install."""

from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw

from pipelines.data.text.fonts import covering, find_faces
from pipelines.data.text.scripts import Vocabulary, shipped

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FACES = [face for face in find_faces([FONTS]) if face.family.startswith("DejaVu") and "Display" not in face.family]
COVERED = {name: found for name, script in shipped().items() if (found := covering(FACES, script))}
"""Faces by script."""


def vocabulary(name: str, *lines: str) -> Vocabulary:
    return Vocabulary(name, shipped()[name], lines)


def inside(polygons, size, margin: float = 0.0) -> Image.Image:
    """A mask, 255 within `margin` pixels of the polygons, of a picture of (height, width)."""
    mask = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        draw.polygon(polygon, fill=255, outline=255)
        if margin:
            draw.line([*polygon, polygon[0]], fill=255, width=round(2 * margin), joint="curve")
    return mask
