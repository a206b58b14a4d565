"""Prompts as a Parquet table: a column a field, what is nested as JSON text."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

from lens_core.recipes import RecipeProblem

NESTED = ("criteria", "facts")


def read_table(path: Path) -> list[str]:
    """The rows as the lines of a .jsonl file. Raises RecipeProblem where the file cannot be read."""
    parquet = _parquet(path)
    try:
        rows = parquet.read_table(path).to_pylist()
    except OSError as error:
        raise RecipeProblem(f"prompt file {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # pyarrow's own errors are ValueErrors
        raise RecipeProblem(f"prompt file {path} is no Parquet file: {error}") from error
    return [json.dumps(_line(row), ensure_ascii=False) for row in rows]


def write_table(path: Path, lines: str) -> None:
    """Write the lines of a .jsonl file as a table."""
    import pyarrow

    rows = [json.loads(line) for line in lines.splitlines()]
    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    schema = pyarrow.schema(
        {"id": text, "text": text, "category": text, "dimensions": texts, **dict.fromkeys(NESTED, text)}
    )
    cells = [{name: _cell(name, row) for name in schema.names} for row in rows]
    _parquet(path).write_table(pyarrow.Table.from_pylist(cells, schema=schema), path, compression="zstd")


def _cell(name: str, row: dict[str, Any]) -> Any:
    if name not in NESTED:
        return row[name]
    return json.dumps(row[name], ensure_ascii=False) if row.get(name) else None


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """What is empty is left to the defaults of a line; what is nested is read, or left as it is to be complained of."""
    full = {name: value for name, value in row.items() if value is not None}
    return {name: _parsed(value) if name in NESTED else value for name, value in full.items()}


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        return value


def _parquet(path: Path) -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise RecipeProblem(
            f"{path}: Parquet needs pyarrow: `pip install 'lens-rl[parquet]'`, or use .jsonl"
        ) from error
    return pyarrow.parquet
