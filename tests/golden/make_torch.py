"""Makes torch_small.pt: a state_dict as training scripts save it, with the cases that a reader must know.
/usr/bin/python3 tests/golden/make_torch.py   (Debian's python3-torch)"""
import os

import torch
from torch import nn

here = os.path.dirname(os.path.abspath(__file__))


def numbered(model):
    """Sets all tensors to 0, 1, 2, ... / 8, each from where the one before it ended."""
    start = 0
    for t in model.state_dict().values():
        if t.dtype == torch.int64:
            t.fill_(5)
            continue
        t.copy_(torch.arange(start, start + t.numel()).reshape(t.shape) / 8)
        start += t.numel()


# a kernel, a batch norm, a linear layer after Flatten (2 x 2 images of 3 channels), one without a bias
model = nn.Sequential(nn.Conv2d(2, 3, (1, 2)), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4),
                      nn.Linear(4, 4, bias=False))
numbered(model)
model.to(memory_format=torch.channels_last)  # the kernel's strides are not those of its shape
state = model.state_dict()
state["5.weight"] = state["5.weight"].half()
state["4.weight"] = state["4.weight"].double().t().contiguous().t()
torch.save({"epoch": 3, "rate": 0.25, "big": 2 ** 40, "none": None, "names": ["a", "b"], "flags": (True, False),
            "state_dict": state}, os.path.join(here, "torch_small.pt"))
torch.save(nn.Linear(1, 1), os.path.join(here, "torch_module.pt"))
torch.save({"weight": torch.zeros(1)}, os.path.join(here, "torch_legacy.pt"), _use_new_zipfile_serialization=False)
