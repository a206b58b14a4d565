"""The embedded world: scenes of coloured shapes, how they look and are described, and a judge that sees only pixels."""
