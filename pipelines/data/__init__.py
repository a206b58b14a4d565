"""From pictures with captions to training shards."""
