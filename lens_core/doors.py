"""The one door for users' own classes: `python: path/to/file.py:Class` in a recipe."""

import importlib.util
from pathlib import Path
from typing import Any

from lens_core.recipes import OWN_CLASS as PREFIX
from lens_core.recipes import RecipeProblem


def own_class(spec: str, *, field: str) -> type[Any]:
    """The class that `python: path/to/file.py:Class` names; `field` is named in errors."""
    path_text, colon, name = spec.removeprefix(PREFIX).strip().rpartition(":")
    if not colon or not path_text:
        raise RecipeProblem(f"{field}: {spec!r} should read `python: path/to/file.py:Class`")
    path = Path(path_text)
    if not path.is_file():
        raise RecipeProblem(f"{field}: there is no file {path}")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise RecipeProblem(f"{field}: {path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not isinstance(found := getattr(module, name, None), type):
        raise RecipeProblem(f"{field}: {path} has no class {name!r}")
    return found
