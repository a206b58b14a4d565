"""What is wrong with an item tree: found at load, with file and line, before anything is drawn from it."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lens_core.recipes import RecipeProblem, nearest
from taxonomy.english import NUMBERS
from taxonomy.item_files import DIMENSIONS, CategoryFile, Head, SubCategory

_ARTICLES = ("a", "an", "the")
_SUM = 1e-6


def check_tree(head: Head, path: Path, files: Sequence[Path], read: Sequence[CategoryFile]) -> None:
    """Raises RecipeProblem for shares that do not add up, words that no sentence can hold, and doubled names."""
    _check_shares(head, path)
    for file, category in zip(files, read, strict=True):
        _check_dimensions(category, file)
        _check_branches(category, file)
    _check_doubled(zip(files, read, strict=True))


def _check_shares(head: Head, path: Path) -> None:
    total = sum(place.quota for place in head.categories)
    if abs(total - 1) > _SUM:
        raise RecipeProblem(f"{path}: the quotas of the categories add up to {total:g}, not to 1")
    files = [place.file for place in head.categories]
    if doubled := next((file for file in files if files.count(file) > 1), None):
        raise RecipeProblem(f"{_found(path, '', doubled, nth=1)}: category file {doubled} is listed twice")


def _check_dimensions(category: CategoryFile, file: Path) -> None:
    for dimension in category.dimensions:
        if dimension not in DIMENSIONS:
            raise RecipeProblem(
                f"{_found(file, '', dimension)}: unknown dimension {dimension!r}{nearest(dimension, DIMENSIONS)}; "
                f"there are: {', '.join(DIMENSIONS)}"
            )


def _check_branches(category: CategoryFile, file: Path) -> None:
    names = [branch.name for branch in category.sub_categories]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise RecipeProblem(
            f"{_found(file, '', doubled, nth=1)}: sub-category {doubled!r} stands twice in {category.name!r}"
        )
    for branch in category.sub_categories:
        for words, complaint in _misfits(branch):
            raise RecipeProblem(
                f"{_found(file, branch.name, words)}: sub-category {branch.name!r}: {words!r} {complaint}"
            )
        if not any(getattr(branch, DIMENSIONS[dimension]) for dimension in category.dimensions):
            lists = ", ".join(DIMENSIONS[dimension] for dimension in category.dimensions)
            raise RecipeProblem(
                f"{_found(file, branch.name, branch.name)}: sub-category {branch.name!r} has words for none of the "
                f"dimensions of {category.name!r}: fill one of {lists}"
            )


def _misfits(branch: SubCategory) -> Iterator[tuple[str, str]]:
    """Words that a sentence cannot be made of, each with what is wrong."""
    names = [name for item in branch.items for name in (item.one, item.many)]
    lists = (branch.attributes, branch.colours, branch.actions, branch.settings, branch.others, branch.texts)
    for words in (*names, *(words for values in lists for words in values)):
        if not words.strip() or words != " ".join(words.split()):
            yield words, "is blank, or has space where none belongs"
        if '"' in words:
            yield words, 'has a quotation mark ("): prompts put texts between such marks'
    for values in lists:
        if doubled := next((value for value in values if values.count(value) > 1), None):
            yield doubled, "stands twice in one list"
    for name in names:
        if name.split()[0].lower() in _ARTICLES:
            yield name, "begins with an article: write the item without it"
    for other in branch.others:
        if other.split()[0].lower() not in (*_ARTICLES, *NUMBERS, "some"):
            yield other, "has no article: write `a`, `an`, `the` or a number before it"
    for action in branch.actions:
        if not any(word.endswith("ing") for word in action.split()[:2]):
            yield action, "does not begin with a participle: write what it is doing, such as `leaning on a fence`"


def _check_doubled(categories: Iterable[tuple[Path, CategoryFile]]) -> None:
    """No category has another's name, and no item stands twice in the tree, however it is capitalised."""
    files: dict[str, Path] = {}
    places: dict[str, tuple[Path, str]] = {}
    for file, category in categories:
        if category.name in files:
            raise RecipeProblem(f"{file}: name: {category.name!r} is the name of {files[category.name]} too")
        files[category.name] = file
        for branch in category.sub_categories:
            for item in branch.items:
                key = item.one.casefold()
                if key in places:
                    first = _found(*places[key], item.one)
                    again = _found(file, branch.name, item.one, nth=int(places[key] == (file, branch.name)))
                    raise RecipeProblem(
                        f"{again}: item {item.one!r} of {branch.name!r} stands already in {places[key][1]!r} "
                        f"({first}): delete one of the two"
                    )
                places[key] = (file, branch.name)


def _found(file: Path, branch: str, words: str, nth: int = 0) -> str:
    """`file:line` of the nth place where the words stand, from where the branch begins; or the file alone."""
    lines = file.read_text(encoding="utf-8").splitlines()
    heading = re.compile(rf"name:\s*[\"']?{re.escape(branch)}")
    first = next((number for number, line in enumerate(lines) if branch and heading.search(line)), 0)
    pattern = re.compile(rf"(?<![\w-]){re.escape(words)}(?![\w-])", re.I)
    found = [number for number, line in enumerate(lines[first:], first + 1) for _ in pattern.findall(line)]
    return f"{file}:{found[min(nth, len(found) - 1)]}" if found else str(file)
