"""Parts that wait on the CPU until they are wanted: accelerate's model offload, for what is not a `forward`."""

from accelerate.hooks import CpuOffload
from torch import nn


def bring(part: nn.Module) -> None:
    """Move an offloaded part to its device, and the part before it away; leave all others as they are.

    accelerate does this when the part's `forward` is called. Whoever looks at a part's device, or calls what is
    inside it, has to ask a moment earlier.
    """
    hook = getattr(part, "_hf_hook", None)
    if isinstance(hook, CpuOffload):
        hook.pre_forward(part)
