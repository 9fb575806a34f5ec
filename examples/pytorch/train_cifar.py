"""Trains a ResNet on CIFAR-10 by DistributedDataParallel with compressed gradients: three lines of it are atomo's."""
import time

from common import Parser, count, echo, launch


def parse():
    parser = Parser(__doc__, ["python3 examples/pytorch/train_cifar.py --processes 2",
                              "python3 examples/pytorch/train_cifar.py --data cifar-10-batches-bin --epochs 10",
                              "torchrun --nproc_per_node 2 examples/pytorch/train_cifar.py --compress none"])
    parser.add_argument("--data", default="", metavar="DIR",
                        help="folder of CIFAR-10's binary files; if absent: generated")
    parser.add_argument("--model", default="resnet20", choices=["resnet20", "resnet18"],
                        help="network (default: resnet20)")
    parser.add_argument("--compress", default="auto:ratio=64", metavar="SPEC",
                        help="compressor (default: auto:ratio=64); none: DistributedDataParallel without a hook")
    parser.add_argument("--epochs", type=count, default=5, metavar="N",
                        help="passes over the training set (default: 5)")
    parser.add_argument("--batch", type=count, default=64, metavar="N",
                        help="images per process and step (default: 64)")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate at the start, cosine to 0 (default: 0.1)")
    parser.add_argument("--momentum", type=float, default=0.9, help="of SGD (default: 0.9)")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="of SGD (default: 5e-4)")
    parser.add_argument("--max-steps", type=count, metavar="N", help="end after N steps")
    parser.add_argument("--no-augment", dest="augment", action="store_false",
                        help="turn off random crop (4 pixels) and flip")
    parser.add_argument("--seed", type=int, default=0, help="of initial values, order and draws (default: 0)")
    return parser.parse_args()


def accuracy(model, images, labels):
    """The fraction of images that the model classifies right."""
    import torch
    from cifar import normalised
    model.eval()
    with torch.no_grad():
        right = sum((model(normalised(images[k:k + 250])).argmax(1) == labels[k:k + 250]).sum().item()
                    for k in range(0, len(images), 250))
    model.train()
    return right / len(images)


def train(rank, size, options):
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torch.nn.parallel import DistributedDataParallel

    import atomo.torch
    from cifar import augmented, load, normalised
    from models import MODELS

    torch.manual_seed(options.seed)
    (images, labels), test = load(options.data)
    model = MODELS[options.model]().to(memory_format=torch.channels_last)
    state = None
    ddp = DistributedDataParallel(model)
    if options.compress != "none":
        state = atomo.torch.State(options.compress, model, seed=options.seed)
        ddp.register_comm_hook(state, atomo.torch.hook)
    steps = len(images) // (options.batch * size)
    if steps == 0:
        raise SystemExit(f"{len(images)} images, expected {options.batch * size} or more, a step of {size}")
    optimizer = torch.optim.SGD(ddp.parameters(), options.lr, momentum=options.momentum,
                                weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * steps)
    if rank == 0:
        print(echo(options))
        print(f"{options.model}: {sum(p.numel() for p in model.parameters())} parameters; {len(images)} training and "
              f"{len(test[0])} test images; {size} processes, {steps} steps an epoch", flush=True)
    begin, done = time.time(), 0
    for epoch in range(options.epochs):
        order = np.random.default_rng((options.seed, epoch)).permutation(len(images))
        random = np.random.default_rng((options.seed, epoch, rank))
        total = 0.0
        for step in range(steps):
            if options.max_steps and done == options.max_steps:
                break
            at = (step * size + rank) * options.batch
            chosen = torch.from_numpy(order[at:at + options.batch])
            x = normalised(images[chosen])
            if options.augment:
                x = augmented(x, random)
            optimizer.zero_grad()
            loss = F.cross_entropy(ddp(x), labels[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            total, done = total + loss.item(), done + 1
        if rank == 0:
            sent = f", {state.traffic().nbytes / max(done, 1) / 1e3:.1f} kB sent a step" if state else ""
            print(f"epoch {epoch + 1}: loss {total / steps:.4f}, test accuracy {accuracy(model, *test):.4f}, "
                  f"{time.time() - begin:.1f} s{sent}", flush=True)
        if options.max_steps and done == options.max_steps:
            break
    if rank == 0:
        print(f"final test accuracy {accuracy(model, *test):.4f}", flush=True)


if __name__ == "__main__":
    launch(train, parse())
