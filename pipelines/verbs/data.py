"""`lens-rl data`: from a pile of images to training shards."""

import typer

data_app = typer.Typer(no_args_is_help=True, help="Training data: clean a pile of images, caption them, pack shards.")


@data_app.callback()
def data() -> None:
    """Training data: clean a pile of images, caption them, pack shards."""
