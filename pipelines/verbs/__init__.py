"""The verbs of the `lens-rl` command that have verbs of their own, a file each. Heavy imports wait inside them."""
