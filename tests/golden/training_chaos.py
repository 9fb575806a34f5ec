"""How long PyTorch runs that differ by a rounding error agree: the runs of make_training.py and the same runs disturbed, for
rising learning rates. A golden run tests something only while these agree. Run: /usr/bin/python3 training_chaos.py

Disturbances: all weights times 1 + 1e-7 n, n standard normal (three draws); for the convolutions also channels_last, and
oneDNN off (another order of sums). Prints the largest relative difference of a loss over the 50 steps, and the first step
at which it passes 1e-3."""
import sys

import torch

from make_training import adamw, images, sgd, start_resnet20, start_transformer, text, train


def perturbed(net, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1 + 1e-7 * torch.randn(p.shape, generator=g))
    return net


def as_channels_last(net):
    return net.to(memory_format=torch.channels_last)


def compare(name, base, run):
    d = [abs(a - b) / abs(b) if b == b and a == a else float("inf") for a, b in zip(run, base)]
    first = next((i + 1 for i, v in enumerate(d) if v > 1e-3), None)
    print(f"    {name:22s} largest difference {max(d):.1e}   passes 1e-3 at step {first or '-'}")
    sys.stdout.flush()


def study(what, start, optimizer, batch, rates, disturbances):
    for lr in rates:
        net = start()
        base = train(net, optimizer(net, lr), batch)
        print(f"{what}, lr {lr}: loss {base[0]:.3f} to {base[-1]:.3f}")
        for name, disturb in disturbances.items():
            net = disturb(start())
            compare(name, base, train(net, optimizer(net, lr), batch))
        if "channels_last" in disturbances:
            with torch.backends.mkldnn.flags(enabled=False):
                net = start()
                compare("oneDNN off", base, train(net, optimizer(net, lr), batch))


weights = {f"weights (1 + 1e-7 n), {k}": (lambda net, k=k: perturbed(net, k)) for k in (1, 2, 3)}
rates = [float(v) for v in sys.argv[1:]]
for bias in (2, 0):
    study(f"resnet20, biases of the norms {bias}", lambda: start_resnet20(bias), sgd, images,
          rates or [0.0005, 0.001, 0.002, 0.005, 0.05], {**weights, "channels_last": as_channels_last})
study("transformer", start_transformer, adamw, text, rates or [1e-3, 3e-3, 1e-2], weights)
