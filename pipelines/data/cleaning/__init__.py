"""Nine steps between a pile of images and those worth training on; scores are kept, decisions can be taken again."""
