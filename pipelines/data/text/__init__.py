"""Pictures of text: what is written, in which fonts, on what, and whether it can be read."""
