"""What makes criteria a list that verdicts can be kept for: names used once, and `requires` that leads somewhere."""

from collections.abc import Mapping, Sequence

from lens_core.recipes import nearest
from lens_core.records import Criterion


def problem_of(criteria: Sequence[Criterion]) -> str | None:
    """Why the criteria of one prompt cannot stand together, with the fix; None where they can."""
    names = [criterion.name for criterion in criteria]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        return f"two are named {doubled!r}; verdicts are kept by name, so rename one"
    if unfit := next((one for one in criteria if not 0 < one.weight < float("inf")), None):
        return f"criterion {unfit.name!r} has weight {unfit.weight:g}; a weight is above 0"
    return problem_of_parents({one.name: one.requires for one in criteria})


def problem_of_parents(parents: Mapping[str, str | None]) -> str | None:
    """Why these `requires`, by the name of the criterion, cannot be followed; None where they can."""
    for name, parent in parents.items():
        if parent is not None and parent not in parents:
            return f"criterion {name!r} requires {parent!r}, which does not exist{nearest(parent, parents)}"
    for name in parents:
        chain = [name]
        while (parent := parents[chain[-1]]) is not None:
            if parent in chain:
                circle = " requires ".join(map(repr, [*chain[chain.index(parent) :], parent]))
                return f"{circle}: take one `requires` out of the circle"
            chain.append(parent)
    return None
