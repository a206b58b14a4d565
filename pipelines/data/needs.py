"""Libraries of the extras: what is missing is told before any work is done, with the command that installs it."""

from importlib.util import find_spec

from lens_core.runs import RunProblem


def need(purpose: str, extra: str, *modules: str) -> None:
    """Raises RunProblem that names the modules which are not installed."""
    missing = [module for module in modules if not _is_there(module)]
    if missing:
        raise RunProblem(f"{purpose} needs {', '.join(missing)}: pip install 'lens-rl[{extra}]'")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that a submodule is in
        return False
