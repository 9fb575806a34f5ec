"""CIFAR-10 from its binary files, without torchvision; and generated images where there are none."""
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

RECORD = 3073  # bytes: a label, 1024 red, 1024 green, 1024 blue
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)


def read(path):
    """Images [n, 3, 32, 32] uint8 and labels [n] of one file."""
    data = np.fromfile(path, np.uint8)
    if data.size == 0 or data.size % RECORD:
        raise ValueError(f"{path}: {data.size} bytes, expected a multiple of {RECORD}: is it a complete binary file of "
                         "CIFAR-10?")
    records = data.reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(f"{path}: a label is {records[:, 0].max()}, expected 0 to 9: is it CIFAR-10?")
    images, labels = records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0].astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(labels)


def generated(n, seed):
    """Ten patterns under noise."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).integers(64, 192, (10, 3, 8, 8)).repeat(4, 2).repeat(4, 3)
    labels = np.arange(n) % 10
    images = np.clip(patterns[labels] + random.normal(0, 60, (n, 3, 32, 32)), 0, 255).astype(np.uint8)
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def load(folder, train=5000, test=1000):
    """((images, labels) to train on, (images, labels) to test on) of a folder, or generated ones for ""."""
    if not folder:
        return generated(train, 1), generated(test, 2)
    files, last = sorted(pathlib.Path(folder).glob("data_batch_*.bin")), pathlib.Path(folder) / "test_batch.bin"
    if not files or not last.exists():
        raise FileNotFoundError(f"{folder}: expected data_batch_1.bin ... and test_batch.bin, CIFAR-10 in binary form")
    parts = [read(path) for path in files]
    return (torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])), read(last)


def normalised(images):
    """float32 in torch.channels_last."""
    return ((images.float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def augmented(images, random):
    """Random crops (4 pixels of padding) and flips of normalised images."""
    n = len(images)
    padded = F.pad(images, (4, 4, 4, 4))
    y, x = random.integers(0, 9, n), random.integers(0, 9, n)
    out = torch.stack([padded[i, :, y[i]:y[i] + 32, x[i]:x[i] + 32] for i in range(n)])
    flip = torch.from_numpy(random.random(n) < 0.5)
    out[flip] = out[flip].flip(3)
    return out.contiguous(memory_format=torch.channels_last)
