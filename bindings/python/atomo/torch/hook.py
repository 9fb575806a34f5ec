"""The hook. DDP checks its annotations, so this file must not import annotations from __future__."""
import torch
import torch.distributed as dist

from .state import State


def hook(state: State, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """For ``ddp.register_comm_hook(state, atomo.torch.hook)``: averages a bucket of gradients over the processes.
    Returns at once; the state's threads encode, exchange and decode while backward continues."""
    return state.exchange(bucket)
