"""From shards to a base model: the semantic VAE and the MMDiT."""
