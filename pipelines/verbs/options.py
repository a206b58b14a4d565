"""What the verbs of the command share: options, and how a problem is told."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

Overrides = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Override a field of the recipe.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
NO_OVERRIDES: list[str] = []
NO_FILES: list[Path] = []
OFFLINE = ["offline"]

EXIT_PROBLEM, EXIT_INTERRUPTED = 1, 130


def problems_explained(verb: Callable[..., None]) -> Callable[..., None]:
    """A problem that the user can mend is one message on stderr and exit status 1, without a traceback."""

    @wraps(verb)
    def explained(*args: Any, **kwargs: Any) -> None:
        from lens_core.runs import RunProblem

        try:
            verb(*args, **kwargs)
        except (ValueError, RunProblem) as problem:
            print(f"lens-rl: {problem}", file=sys.stderr)
            raise typer.Exit(EXIT_PROBLEM) from problem
        except KeyboardInterrupt:
            print("lens-rl: interrupted", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return explained
