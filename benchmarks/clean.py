"""Cleaning images beside what people use for it: `python -m benchmarks.clean`.

The same files, photographs of scikit-image as JPEG of 0.8 megapixels, in turns, on one core, by the processor's time.
Ours decodes once and gives all that the steps on pixels need: corruption, area, sharpness, entropy, light, a SHA-256
and a perceptual hash; the whole command also compares, writes the manifest and draws a page of a hundred pictures.
cleanvision gives its counterparts. The imagehash script is what a hand-written loop comes to.

The second table is the whole command in a process of its own, at 1,000 and at 20,000 small images: its peak memory.

Needs, beside the extra `data`: pip install cleanvision imagehash scikit-image
"""

import contextlib
import io
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.common import Json, Quick, interleaved, machine, show
from pipelines.data.clean import clean
from pipelines.data.cleaning.pixels import measure
from pipelines.data.cleaning.recipe import CleanRecipe

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "ihc.png")
SIZE = (1024, 768)
"""(width, height)."""
FEW, MANY = 1_000, 20_000
SMALL = 192
RECIPE = CleanRecipe()
CLEANVISION = ("dark", "light", "low_information", "blurry", "exact_duplicates", "near_duplicates")


def main(quick: Quick = False, json: Json = None) -> None:
    torch.set_num_threads(1)
    count = 60 if quick else 300
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photographs"
        files = write_photographs(folder, count)
        contestants: dict[str, Callable[[], Any]] = {
            "lens-rl, the steps on pixels": lambda: [measure(file.read_bytes()) for file in files],
            "lens-rl, the whole command": lambda: clean(str(folder), Path(tempfile.mkdtemp(dir=name)), RECIPE),
            "cleanvision, the same questions": lambda: cleanvision(folder),
            "imagehash and Pillow, by hand": lambda: [by_hand(file) for file in files],
            "opencv, decoding alone": lambda: [cv2.imdecode(np.fromfile(file, np.uint8), 1) for file in files],
        }
        seconds = interleaved(contestants, rounds=1 if quick else 3, device=torch.device("cpu"))
        theirs = seconds["cleanvision, the same questions"]
        rows = [
            {"what": what, "images/s per core": count / spent, "times cleanvision": theirs / spent}
            for what, spent in seconds.items()
        ]
        show(f"{count} JPEG of {SIZE[0]} x {SIZE[1]}, {machine(torch.device('cpu'))}", rows, json)
        sizes = (100, 400) if quick else (FEW, MANY)
        memory = [{"images": str(size), "peak MiB": peak_memory(Path(name), size)} for size in sizes]
        show("Peak memory of lens-rl data clean", memory, json and json.with_stem(f"{json.stem}-memory"))


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Different views of the photographs."""
    import skimage

    folder.mkdir()
    random = np.random.default_rng(0)
    photographs = [Image.open(Path(skimage.data_dir) / name).convert("RGB") for name in PHOTOGRAPHS]
    files = [folder / f"{number:05d}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        image = photographs[number % len(photographs)]
        side = int(min(image.size) * random.uniform(0.5, 1.0))
        left, top = (int(random.integers(length - side + 1)) for length in image.size)
        view = image.crop((left, top, left + side, top + side)).resize(SIZE, Image.Resampling.LANCZOS)
        view.save(file, quality=90)
    return files


def cleanvision(folder: Path) -> None:
    from cleanvision import Imagelab  # pyright: ignore[reportMissingImports]

    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Imagelab(data_path=str(folder)).find_issues({name: {} for name in CLEANVISION}, n_jobs=1, verbose=False)


def by_hand(file: Path) -> tuple[Any, ...]:
    """What a script of twenty lines does: a full decode, numpy for the measures, imagehash for the hash."""
    import imagehash  # pyright: ignore[reportMissingImports]

    with Image.open(file) as image:
        image.load()
        gray = np.asarray(image.convert("L"))
        value = np.asarray(image.convert("HSV"))[..., 2]
        counts = np.bincount(gray.ravel(), minlength=256) / gray.size
        entropy = -(counts[counts > 0] * np.log2(counts[counts > 0])).sum()
        return cv2.Laplacian(gray, cv2.CV_64F).var(), entropy, value.mean(), imagehash.phash(image)


def peak_memory(folder: Path, count: int) -> float:
    """MiB that a process of its own needs at most to clean so many different small images."""
    source, out = folder / f"small-{count}", folder / f"out-{count}"
    source.mkdir()
    random = np.random.default_rng(1)
    for number in range(count):
        coarse = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (SMALL, SMALL), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(source / f"{number:06d}.jpg"), smooth)
    command = [sys.executable, "-m", "pipelines", "data", "clean", str(source), "--out", str(out)]
    limits = ["--set", "thresholds.min_area=0", "--set", "thresholds.sharpness=0"]
    ask = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
    ask += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", ask, *command, *limits], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


if __name__ == "__main__":
    import typer

    typer.run(main)
