"""Real photographs with planted faults: what each cleaning step must find, and what it must leave alone.

    python -m tests.labelled_pictures FOLDER

The photographs are those of scikit-image (mostly public domain) and scikit-learn (CC-BY 2.0). They are dealt into two
halves, so that thresholds chosen on one are judged by pictures of the other. Every picture is cut out anew: none but a
planted near-duplicate shares its frame with another. Of scikit-image, retina and cell are
left out: they are soft by themselves, and the sharpness step calls them so.
"""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

HALVES = {
    "a": ("astronaut.png", "hubble_deep_field.jpg", "camera.png", "gravel.png", "ihc.png", "china.jpg", "rocket.jpg"),
    "b": ("coffee.png", "motorcycle_left.png", "brick.png", "grass.png", "flower.jpg", "moon.png"),
}
COUNTS = {"clean": 130, "truncated": 15, "corrupt": 20, "area": 25, "sharpness": 30, "entropy": 30, "luminance": 40}
"""Pictures of each label in a half. "truncated" is the step "corrupt" too, counted by itself."""
NEAR = 60
"""Near-duplicates in a half, each of a clean picture of its own."""
LEAST_AREA = 384 * 384
SIDE = 512
"""Longest side at which images are measured."""


@dataclass(frozen=True, slots=True)
class Planted:
    """One file of the set."""

    name: str
    content: bytes
    label: str
    """"clean", or the step that must drop it; for a "near-duplicate", either of the two may go."""
    source: str
    twin: str = ""
    """The picture that a near-duplicate was made of."""


def planted(half: str, seed: int = 0) -> list[Planted]:
    """All pictures of a half; the same ones every time."""
    random = np.random.default_rng([seed, ord(half)])
    found: list[Planted] = []
    for label, count in COUNTS.items():
        for number in range(count):
            source = HALVES[half][number % len(HALVES[half])]
            content, suffix = MAKERS[label](frame(source, random), number, random)
            found.append(Planted(f"{half}-{label}-{number:03d}.{suffix}", content, label, source))
    clean = found[: COUNTS["clean"]]
    for number, twin in enumerate(clean[:NEAR]):
        content, suffix = near_duplicate(twin.content, number, random)
        found.append(
            Planted(f"{half}-near-duplicate-{number:03d}.{suffix}", content, "near-duplicate", twin.source, twin.name)
        )
    return found


def write(folder: Path, pictures: list[Planted]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in pictures:
        (folder / one.name).write_bytes(one.content)


@lru_cache(maxsize=1)
def photographs() -> dict[str, Image.Image]:
    import skimage
    import sklearn.datasets

    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images")
    names = {name for half in HALVES.values() for name in half}
    files = {file.name: file for folder in folders for file in folder.iterdir() if file.name in names}
    return {name: Image.open(file).convert("RGB") for name, file in files.items()}


def frame(source: str, random: np.random.Generator) -> Image.Image:
    """A view of a photograph: cut out, perhaps mirrored or turned, of at least LEAST_AREA pixels."""
    image = photographs()[source]
    low = (LEAST_AREA / (image.width * image.height)) ** 0.5
    share = random.uniform(min(low * 1.01, 1.0), max(low * 1.01, 0.9))
    ratio = random.uniform(0.95, 1.05)
    width = min(image.width, int(np.ceil(image.width * share * ratio)))
    height = min(image.height, max(int(np.ceil(image.height * share / ratio)), -(-LEAST_AREA // width)))
    left, top = int(random.integers(image.width - width + 1)), int(random.integers(image.height - height + 1))
    view = image.crop((left, top, left + width, top + height))
    turn = list(Image.Transpose)[int(random.integers(len(Image.Transpose)))]
    return view.transpose(turn) if random.random() < 0.8 else view


def encoded(image: Image.Image, suffix: str = "jpg", quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix]
    image.save(buffer, kind, **({} if suffix == "png" else {"quality": quality}))
    return buffer.getvalue()


Made = tuple[bytes, str]


def clean(image: Image.Image, number: int, random: np.random.Generator) -> Made:
    suffix = ("jpg", "jpg", "webp", "png")[number % 4]
    return encoded(image, suffix, int(random.integers(80, 96))), suffix


def truncated(image: Image.Image, number: int, random: np.random.Generator) -> Made:
    """A JPEG of which between 2 KB and all but its last 64 bytes are there; every third is progressive."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, progressive=number % 3 == 0)
    content = buffer.getvalue()
    return content[: int(random.integers(2000, len(content) - 64))], "jpg"


def corrupt(image: Image.Image, number: int, random: np.random.Generator) -> Made:
    content = encoded(image, "png")
    middle = len(content) // 2
    return (
        (b"", "jpg"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "jpg"),
        (b"a text that was renamed " * 40, "png"),
        (bytes(5000), "jpg"),
        (random.bytes(5000), "webp"),
        (content[:middle], "png"),
        (content[:middle] + random.bytes(64) + content[middle + 64 :], "png"),
        (encoded(image, "webp")[:-400], "webp"),
    )[number % 8]


def small(image: Image.Image, number: int, random: np.random.Generator) -> Made:
    factor = (random.uniform(0.05, 0.97) * LEAST_AREA / (image.width * image.height)) ** 0.5
    size = (max(8, int(image.width * factor)), max(8, int(image.height * factor)))
    return encoded(image.resize(size, Image.Resampling.LANCZOS)), "jpg"


def blurred(image: Image.Image, number: int, random: np.random.Generator) -> Made:
    """Out of focus, moved, or enlarged from next to nothing."""
    strength = random.uniform(1.0, 2.0) * max(image.size) / 512
    if number % 3 == 0:
        image = image.filter(ImageFilter.GaussianBlur(3 * strength))
    elif number % 3 == 1:
        image = image.filter(ImageFilter.BoxBlur(5 * strength))
    else:
        few = (round(image.width / (8 * strength)), round(image.height / (8 * strength)))
        image = image.resize(few, Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)
    return encoded(image), "jpg"


def poor(image: Image.Image, number: int, random: np.random.Generator) -> Made:
    """Few grey levels, a small picture on an empty page, or a page of few colours; the light of each is in order."""
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)  # Squeezed later, few levels would be mixed to many.
    suffix = "png"
    if number % 3 == 0:
        image = ImageOps.posterize(ImageOps.grayscale(image), 1 + number % 2).convert("RGB")
    elif number % 3 == 1:
        page = Image.new("RGB", image.size, tuple(int(value) for value in random.integers(0, 256, 3)))
        small_one = image.resize((image.width // 4, image.height // 4), Image.Resampling.LANCZOS)
        page.paste(small_one, (image.width // 3, image.height // 3))
        image, suffix = page, "jpg"
    else:
        image = image.quantize(int(random.integers(3, 9)), dither=Image.Dither.NONE).convert("RGB")
    return encoded(ImageOps.autocontrast(image, cutoff=2), suffix), suffix


def ill_lit(image: Image.Image, number: int, random: np.random.Generator) -> Made:
    """Underexposed and overexposed in turn."""
    gain = random.uniform(0.1, 0.28)
    values = np.asarray(image, np.float32) / 255
    values = values * gain if number % 2 else 1 - (1 - values) * gain
    return encoded(Image.fromarray((values * 255).astype(np.uint8)), "jpg", 95), "jpg"


def near_duplicate(content: bytes, number: int, random: np.random.Generator) -> Made:
    """The same picture compressed again, resized, of another light, trimmed, or in another format."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    change = number % 6
    if change == 0:
        return encoded(image, "jpg", int(random.integers(35, 70))), "jpg"
    if change == 1:
        factor = random.uniform(1.05, 2.0)
        size = (round(image.width * factor), round(image.height * factor))
        return encoded(image.resize(size, Image.Resampling.LANCZOS)), "jpg"
    if change == 2:
        return encoded(image, "webp", int(random.integers(40, 80))), "webp"
    if change == 3:
        return encoded(ImageEnhance.Brightness(image).enhance(random.uniform(0.85, 1.12))), "jpg"
    if change == 4:
        return encoded(ImageEnhance.Color(image).enhance(random.uniform(0.3, 1.5))), "jpg"
    border = max(1, min(image.size) // 200)
    box = (border, border, image.width - border, image.height - border)
    return encoded(image.crop(box).resize(image.size, Image.Resampling.LANCZOS)), "jpg"


MAKERS: dict[str, Callable[[Image.Image, int, np.random.Generator], Made]] = {
    "clean": clean,
    "truncated": truncated,
    "corrupt": corrupt,
    "area": small,
    "sharpness": blurred,
    "entropy": poor,
    "luminance": ill_lit,
}


if __name__ == "__main__":
    for each in HALVES:
        write(Path(sys.argv[1]) / each, planted(each))
