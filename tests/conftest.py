"""What all tests share: property tests that give the same cases everywhere, and few threads."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("lens-rl", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("lens-rl")
torch.set_num_threads(2)


@pytest.fixture(scope="module")
def one_thread():
    """For small tensors, which two threads only hold up, and for what is equal to the bit at one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
