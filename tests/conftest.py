"""What all tests share: property tests that give the same cases everywhere, and one thread for tiny tensors."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("lens-rl", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("lens-rl")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory) -> Path:
    """The folder of a small vision-language model that knows red, green and blue; see `tests/tiny_vlm.py`."""
    from tests.tiny_vlm import build, save, train

    model, processor = build()
    train(model, processor)
    return save(model, processor, tmp_path_factory.mktemp("tiny-vlm"))
