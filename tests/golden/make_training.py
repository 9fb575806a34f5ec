"""Losses of 50 training steps in PyTorch, from weights and batches by a formula that Lua has too (so nothing is stored but
the losses). Run: /usr/bin/python3 make_training.py > training.lua

resnet20: the biases of its norms start at 2, so that few ReLUs have an input near 0: where a rounding error changes its
sign, the loss changes by 1e-5 at once, and such differences grow. SGD 0.002, momentum 0.9, weight decay 5e-4,
batch 8 of 16x16 images: at 0.005 two PyTorch runs that differ by rounding diverge (training_chaos.py). transformer: AdamW
1e-2, width 32, 2 layers, 4 heads, batch 4 of 16 characters out of 29."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)


def formula(n, key):
    """n numbers in [-0.5, 0.5): a linear congruence, the same in Lua."""
    x, out = (key * 7919 + 17) % 65537, []
    for _ in range(n):
        x = (x * 75 + 74) % 65537
        out.append(x / 65537 - 0.5)
    return torch.tensor(out, dtype=torch.float32)


def fill(net):
    """Weights by formula in the order of the parameters, as Lua stores them (convolutions [out, kh, kw, in])."""
    for i, p in enumerate(net.parameters()):
        if p.dim() < 2:
            continue  # norms and biases keep 1 and 0
        shape = p.shape if p.dim() == 2 else (p.shape[0], p.shape[2], p.shape[3], p.shape[1])
        fan = p[0].numel()
        v = formula(p.numel(), i + 1).reshape(shape) * math.sqrt(12 / fan)
        p.data = v if p.dim() == 2 else v.permute(0, 3, 1, 2).contiguous()


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if stride != 1 or cin != cout:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet20():
    layers, c = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for s, cout in enumerate([16, 32, 64]):
        for b in range(3):
            layers.append(Block(c, cout, 2 if s > 0 and b == 0 else 1))
            c = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        mask = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
        y = self.norm1(x)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, vocab, width, layers, heads, length):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*[TransformerBlock(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions(torch.arange(x.shape[1])))))


def train(net, opt, batch):
    losses = []
    for step in range(50):
        x, y = batch(step)
        opt.zero_grad()
        logits = net(x)
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten())
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


def images(step):
    labels = torch.tensor([(3 * i + step) % 10 for i in range(8)])
    x = formula(8 * 16 * 16 * 3, 100 + step % 4).reshape(8, 16, 16, 3) * 2
    return (x + labels.reshape(8, 1, 1, 1) * 0.1).permute(0, 3, 1, 2).contiguous(), labels


def text(step):
    t = ((formula(4 * 17, 200 + step % 6) + 0.5) * 29).long().clamp(0, 28).reshape(4, 17)
    return t[:, :-1], t[:, 1:]


def start_resnet20(norm_bias=2):
    net = resnet20()
    fill(net)
    nn.init.zeros_(net[-1].bias)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.constant_(m.bias, norm_bias)
    return net


def start_transformer():
    net = Transformer(29, 32, 2, 4, 16)
    fill(net)
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
    return net


def sgd(net, lr):
    return torch.optim.SGD(net.parameters(), lr, 0.9, weight_decay=5e-4)


def adamw(net, lr):
    return torch.optim.AdamW(net.parameters(), lr, weight_decay=0.01)


LR = dict(resnet20=0.002, transformer=1e-2)  # resnet20: at twice the rate runs diverge (training_chaos.py)

if __name__ == "__main__":
    net = start_resnet20()
    resnet = train(net, sgd(net, LR["resnet20"]), images)
    net = start_transformer()
    transformer = train(net, adamw(net, LR["transformer"]), text)
    print("-- Written by make_training.py.\nreturn {")
    for name, losses in dict(resnet20=resnet, transformer=transformer).items():
        print(f"  {name} = {{" + ", ".join(f"{v:.7g}" for v in losses) + "},")
    print("}")
