"""`lens-rl prompts`: draws from a taxonomy tree, printed or written as a prompt file."""

from pathlib import Path

from lens_core.records import Prompt
from rubrics.rubric import Rubric
from taxonomy.prompt_set import write_prompts
from taxonomy.sampler import sample
from taxonomy.tree import load_tree


def draw_prompts(tree: str, rubric: str, *, count: int, seed: int, out: Path | None) -> list[str]:
    """The texts of `count` draws; with `out`, they are written there together with their criteria."""
    writer = Rubric.load(rubric)
    drawn = [
        Prompt(draw.id, draw.text, draw.category, draw.dimensions, writer.criteria(draw.text, draw.facts), draw.facts)
        for draw in sample(load_tree(tree), count, seed)
    ]
    if out is not None:
        write_prompts(out, drawn)
    return [prompt.text for prompt in drawn]
