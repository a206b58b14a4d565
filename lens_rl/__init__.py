"""How a generator improves: prompt groups, rollouts, verdicts, DiffusionNFT."""
