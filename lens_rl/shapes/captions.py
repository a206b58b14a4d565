"""What is said of a scene in the pretraining corpus.

Dense captions state every fact, in each of the ways that a prompt of the taxonomy may state it;
brief ones only name the objects.
"""

from lens_rl.shapes.scene import kinds
from taxonomy.sampler import Draw
from taxonomy.tree import Tree


def captions(tree: Tree, draw: Draw) -> dict[str, list[str]]:
    """Captions by kind: "dense" and "brief", each with at least one."""
    number, plural = tree.words["number"], tree.words["plural"]
    objects = [
        f"{number[str(kind.count)]} {kind.colour} {kind.shape if kind.count == 1 else plural[kind.shape]}"
        for kind in kinds(draw.facts)
    ]
    return {"dense": tree.templates[draw.category].texts(draw.facts), "brief": [" and ".join(objects)]}
