"""Random streams by name: the same names give the same stream in every process and on every machine."""

import hashlib


def seed_of(*names: str | int) -> int:
    """A seed in [0, 2**63) that depends on the names and their order only."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
