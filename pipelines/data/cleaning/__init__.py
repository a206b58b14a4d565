"""Nine steps between a pile of images and those worth training on; scores are kept, decisions can be taken again."""

import os

QUIET = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}
"""Daft and Ray report their use over the network unless told not to, here and in workers."""
for name, value in QUIET.items():
    os.environ.setdefault(name, value)
