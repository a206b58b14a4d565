"""Can rendered text be read? `python -m benchmarks.rendered_text`: needs rapidocr (`pip install 'lens-rl[text]'`).

Pictures at the default settings of `lens-rl data render-text`, none left out, read back by rapidocr. A word counts as
read where it comes back letter for letter, capitals apart; in Chinese and Japanese, which write no spaces, letters are
counted. Scripts that the reader does not know are drawn and timed, and their words count neither way.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer

from benchmarks.common import Json, Quick, machine, show
from pipelines.data.text.order import Order, Stock, draw, prepare
from pipelines.data.text.reading import Reader
from pipelines.data.text.scripts import shipped

PICTURES = {"latin": 120, "chinese": 40, "japanese": 40}
OTHERS = 10
"""Pictures of a script that is only drawn."""

Fonts = Annotated[list[Path], typer.Option(metavar="DIR", help="Folder of fonts, also several times.")]
NO_FOLDERS: list[Path] = []


def main(quick: Quick = False, json: Json = None, fonts: Fonts = NO_FOLDERS) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    stock = prepare(Order(Path(), 0, fonts=tuple(fonts)))
    reader = Reader()
    rows = []
    for name in stock.faces:
        count = PICTURES.get(name, OTHERS)
        rows.append(measure(stock, reader, name, max(count // 20, 2) if quick else count))
    for name, reason in stock.missing.items():
        print(f"without {name}: {reason}")
    show(f"Rendered text read back on {machine(torch.device('cpu'))}", rows, json)


def measure(stock: Stock, reader: Reader, name: str, count: int) -> dict[str, Any]:
    """Draw the first pictures of a script, and read them."""
    one = prepare(Order(Path(), count, scripts=(name,), fonts=stock.order.fonts))
    asked = found = whole = 0
    drawing = reading = 0.0
    known = not reader.unknown(shipped()[name].alphabet)
    for number in range(count):
        start = time.process_time()
        _, drawn, _ = draw(one, number)
        drawing += time.process_time() - start
        if known:
            texts = [block.text for block in drawn.blocks]
            start = time.process_time()
            read = reader.check(np.asarray(drawn.picture), texts, spaced=shipped()[name].spaced)
            reading += time.process_time() - start
            asked, found, whole = asked + read.asked, found + read.found, whole + (read.found == read.asked)
    return {
        "script": name,
        "faces": str(len(one.faces[name])),
        "pictures": str(count),
        "of": "words" if shipped()[name].spaced else "letters",
        "asked": str(asked) if known else "-",
        "read back": f"{found / asked:.1%}" if known else "not checked",
        "pictures all read": f"{whole / count:.1%}" if known else "-",
        "drawn / s": count / drawing,
        "read / s": count / reading if known else "-",
    }


if __name__ == "__main__":
    typer.run(main)
