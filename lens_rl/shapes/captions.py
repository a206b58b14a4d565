"""What is said of a scene in the pretraining corpus.

Dense captions state every fact, in each of the ways that a prompt of the taxonomy may state it;
brief ones only name the objects.
"""

from lens_rl.shapes.scene import kinds
from taxonomy.sampler import Draw
from taxonomy.tree import Tree

NUMBERS = {1: "one", 2: "two", 3: "three"}


def captions(tree: Tree, draw: Draw) -> dict[str, list[str]]:
    """Captions by kind: "dense" and "brief", each with at least one."""
    objects = [f"{NUMBERS[n]} {colour} {shape}{'s' if n > 1 else ''}" for n, colour, shape in kinds(draw.facts)]
    return {"dense": tree.templates[draw.category].texts(draw.facts), "brief": [" and ".join(objects)]}
