"""What all tests share: property tests that give the same cases everywhere, and one thread for tiny tensors."""

import torch
from hypothesis import settings

settings.register_profile("lens-rl", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("lens-rl")
torch.set_num_threads(1)
