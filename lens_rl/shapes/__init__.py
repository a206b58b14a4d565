"""The embedded world: scenes of coloured shapes, how they look, how they are described, and a judge that sees only pixels."""
