"""A small item tree with its grammar, written into a folder, for tests that plant faults or count."""

import copy
from pathlib import Path
from typing import Any

import yaml

SIGN_FRAME = {
    "view": ["seen from straight ahead", "seen from below"],
    "depth": ["sharp all over", "in front of a blur"],
}
HEAD: dict[str, Any] = {
    "name": "small",
    "size": 12,
    "grammar": "words.yaml",
    "lit": ["sun"],
    "manners": {
        "beast": {
            "counts": [2, 3],
            "relations": ["to the left of"],
            "frame": {"style": ["a photograph"], "view": ["seen from above"], "light": ["in soft light"]},
        },
        "sign": {"relations": ["above"], "frame": SIGN_FRAME},
    },
    "categories": [
        {"file": "beasts.yaml", "quota": 0.75, "manner": "beast"},
        {"file": "signs.yaml", "quota": 0.25, "manner": "sign", "always": ["text"]},
    ],
}
BEASTS: dict[str, Any] = {
    "name": "beasts",
    "dimensions": ["attribute", "colour", "count", "interaction", "spatial relationship"],
    "sub-categories": [
        {
            "name": "of the farm",
            "items": ["cow", "sheep", {"one": "ox", "many": "oxen"}, "goat", "donkey", "hen"],
            "attributes": ["muddy", "sleepy"],
            "colours": ["black", "white"],
            "actions": ["chewing hay", "licking its nose", "standing still"],
            "settings": ["in a farmyard", "on a sunny hill"],
            "others": ["a wooden bucket", "a stone trough"],
        },
        {
            "name": "of the sea",
            "items": ["seal", "whale", "octopus"],
            "attributes": ["old", "shiny"],
            "colours": ["grey"],
            "actions": ["coming up for air"],
            "settings": ["in a bay"],
            "others": ["an upturned boat"],
        },
    ],
}
SIGNS: dict[str, Any] = {
    "name": "signs",
    "dimensions": ["colour", "count", "text"],
    "sub-categories": [
        {
            "name": "of shops",
            "items": ["bakery sign", "hour board", "unicorn shield"],
            "colours": ["red", "orange"],
            "settings": ["on a brick wall", "above a green door", "by the road to the sea"],
            "texts": ["OPEN", "Fresh bread", "Хлеб"],
        }
    ],
}
GRAMMAR: dict[str, Any] = {
    "name": "words",
    "manners": {
        "beast": {
            "orders": [["opening", "relation", "frame", "whole"], ["opening", "frame", "relation", "whole"]],
            "parts": {
                "opening": [
                    "{{ subject }} {{ setting }}",
                    "{{ subject }} {{ be }} {{ action }} {{ setting }}",
                    "{{ style }} of {{ subject }} {{ setting }}",
                    "{{ style }} of {{ subject }} {{ action }} {{ setting }}",
                ],
                "relation": ["{{ thing }} {{ be }} {{ relation }} {{ other }}"],
                "frame": ["{{ it }} {{ be }} {{ frame }}", "{{ frame }}, {{ thing }} {{ have }} all the attention"],
                "whole": [
                    "{{ alone and it }} can be seen from end to end, and nothing else is in front of it at all",
                    "{{ all }} can be seen from end to end, and none of them is hidden by another",
                ],
            },
        },
        "sign": {
            "orders": [["opening", "words", "frame", "rest"]],
            "parts": {
                "opening": ["{{ subject }} {{ setting }}", "{{ setting }} {{ be }} {{ subject }}"],
                "words": [
                    '{{ thing }} reads "{{ text }}" in clear letters',
                    'the words on it, painted by hand, are "{{ text }}"',
                    'who looks up finds "{{ text }}" written on {{ thing }}',
                ],
                "frame": ["{{ it }} {{ be }} {{ frame }}", "the picture has it {{ frame }}"],
                "rest": [
                    "every letter is complete and can be read from a long way off",
                    "the paint is fresh, and no letter runs into the next one anywhere",
                    "nothing else is written in the whole street, as far as one can see",
                ],
            },
        },
    },
}


def write_small_tree(folder: Path, **changes: Any) -> Path:
    """Write the tree; `changes` replace fields by `file__field__index...`, such as `beasts__dimensions=[]`."""
    files = copy.deepcopy({"head": HEAD, "beasts": BEASTS, "signs": SIGNS, "words": GRAMMAR})
    for place, value in changes.items():
        name, *fields = place.split("__")
        section = files[name]
        *parents, last = [int(field) if field.isdigit() else field.replace("sub_c", "sub-c") for field in fields]
        for field in parents:
            section = section[field]
        section[last] = value
    for name, content in files.items():
        file = folder / ("small.yaml" if name == "head" else f"{name}.yaml")
        file.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return folder / "small.yaml"
