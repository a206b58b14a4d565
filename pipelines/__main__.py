"""`python -m pipelines`: the `lens-rl` command where its script is not on the path."""

from pipelines.cli import main

main()
