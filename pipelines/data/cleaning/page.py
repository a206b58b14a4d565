"""`report.html` of a cleaning: the funnel, every score with its limits, and what fell on either side of them.

Only the images on the page are read again; one that is gone by now is named instead.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lens_core.runs import write_whole
from lens_rl.report.page import template
from lens_rl.report.pictures import SHOWN_SIDE, Picture
from pipelines.data.cleaning.funnel import MEASURED, Funnel, Measured
from pipelines.data.cleaning.pixels import decode, shrink
from pipelines.data.cleaning.reading import Unreadable, read_all
from pipelines.data.cleaning.sources import Reference
from pipelines.data.cleaning.steps import CORRUPT, NEAR_DUPLICATE
from pipelines.data.cleaning.tables import ROWS

REPORT = "report.html"
TEMPLATE = "funnel.html.j2"
SHARPER = 2
"""Pixels of a picture a CSS pixel, for dense screens."""
QUALITY = 80
KINDS = 8
"""Suffixes of other files that a page names."""
AXIS = {
    "area": [1e3, 1e5, 1e7],
    "sharpness": [1e-4, 1e-2, 1],
    "entropy": [0, 2, 4, 6, 8],
    "aesthetics": [0, 2, 4, 6, 8, 10],
}
UNIT_AXIS = [0, 0.25, 0.5, 0.75, 1]


@dataclass(frozen=True, slots=True)
class Histogram:
    """A score as bars: heights and places in percent."""

    title: str
    unit: str
    bars: list[tuple[float, int, bool]]
    """(height, images, whether they fall)."""
    limit: float
    limit_text: str
    ticks: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pictures of one step: those that fell, and those that nearly did."""

    title: str
    text: str
    fell: list[Picture | str]
    """A text in the place of a picture that cannot be shown."""
    nearly: list[Picture | str]


def write_page(funnel: Funnel, file: Path) -> None:
    """Write the page of a funnel that has taken every part."""
    counts = funnel.plain()
    album = Album(funnel)
    page = template(TEMPLATE, Path(__file__).parent).render(
        counts=counts,
        source=funnel.tables.folder.name,
        widest=max(counts["images"], 1),
        others=_others(counts["other_files"]),
        not_run=[step for step in counts["steps"] if step["state"] != "run"],
        histograms=[_histogram(one, funnel) for one in MEASURED if funnel.histograms[one.title].any()],
        sheets=[sheet for one in MEASURED if (sheet := _sheet(one, funnel, album)).fell or sheet.nearly],
        unreadable=[f"{row.key}: {row.reason}" for row in _rows(funnel.fell["corrupt"])],
        pairs=[_pair(row, number, album) for _, number, row in funnel.fell[NEAR_DUPLICATE]],
    )
    write_whole(file, page)


class Album:
    """The images that a page shows, each read once, and none that is known to be unreadable."""

    def __init__(self, funnel: Funnel):
        wanted = {
            number: Reference(row.key, row["where"], row.column, int(row.offset), int(row.length))
            for store in (funnel.fell, funnel.nearly)
            for name, examples in store.items()
            for _, number, row in examples
            if name != CORRUPT
        }
        for row in _rows(funnel.fell[NEAR_DUPLICATE]):
            part, place = divmod(int(row.instead), ROWS)
            wanted[int(row.instead)] = Reference(**funnel.tables.index(part).slice(place, 1).to_pylist()[0])
        contents = read_all(list(wanted.values()))
        self._found = {
            number: (reference.key, _small(content))
            for (number, reference), content in zip(wanted.items(), contents, strict=True)
        }

    def picture(self, number: int, caption: str) -> Picture | str:
        """A picture with a caption, or in words what cannot be shown."""
        key, pixels = self._found[number]
        if pixels is None:
            return f"{key}: {caption}"
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=QUALITY)
        scale = SHOWN_SIDE / max(pixels.size)
        return Picture(
            source=f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}",
            width=max(1, round(pixels.width * scale)),
            height=max(1, round(pixels.height * scale)),
            crisp=False,
            alt=key,
            caption=caption,
        )


def _small(content: bytes | Unreadable) -> Image.Image | None:
    try:
        if isinstance(content, Unreadable):
            return None
        return Image.fromarray(shrink(decode(content, SHOWN_SIDE * SHARPER).rgb, SHOWN_SIDE * SHARPER))
    except Unreadable:
        return None


def _others(files: dict[str, int]) -> dict[str, Any]:
    """The most frequent kinds of files that are no images, and how many there are beside."""
    most = Counter(files).most_common(KINDS)
    rest = sum(files.values()) - sum(number for _, number in most)
    return {"most": most, "kinds": len(files) - len(most), "files": rest}


def _rows(examples: Iterable[tuple[float, int, Any]]) -> list[Any]:
    return [row for _, _, row in examples]


def _histogram(one: Measured, funnel: Funnel) -> Histogram:
    counts = funnel.histograms[one.title]
    limit = getattr(funnel.recipe.thresholds, one.limit)
    at = float(one.place(np.array(limit)))
    middles = (np.arange(len(counts)) + 0.5) / len(counts)
    # A square root keeps a bar of one image visible beside one of thousands.
    heights = 100 * np.sqrt(counts / counts.max())
    return Histogram(
        title=one.title,
        unit=one.unit,
        bars=[
            (round(float(height), 1), int(count), bool((middle < at) == one.keeps_above))
            for height, count, middle in zip(heights, counts, middles, strict=True)
        ],
        limit=round(100 * at, 2),
        limit_text=_number(limit),
        ticks=[
            (round(100 * float(one.place(np.array(tick))), 2), _number(tick))
            for tick in AXIS.get(one.column, UNIT_AXIS)
        ],
    )


def _sheet(one: Measured, funnel: Funnel, album: Album) -> Sheet:
    limit = getattr(funnel.recipe.thresholds, one.limit)

    def pictures(examples: Iterable[tuple[float, int, Any]]) -> list[Picture | str]:
        return [album.picture(number, _number(float(one.values(row.to_frame().T)[0]))) for _, number, row in examples]

    side = "under" if one.keeps_above else "over"
    text = f"Dropped {side} {_number(limit)}{f' ({one.unit})' if one.unit else ''}; nearest to it first."
    return Sheet(one.title, text, pictures(funnel.fell[one.title]), pictures(funnel.nearly[one.title]))


def _pair(row: Any, number: int, album: Album) -> tuple[Picture | str, Picture | str]:
    """The kept image and the dropped one."""
    alike = "to the byte" if row.similarity == 1 else f"{row.similarity:.3f}"
    return album.picture(int(row.instead), "kept"), album.picture(number, alike)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
