"""The networks of models/ in PyTorch, for tests/spec/nn/torch_python_spec.lua (Debian's python3-torch).

torch_twins.py make DIR   writes NAME.pt (a state_dict) and NAME_xy.pt (an input, channels last, and the output)
torch_twins.py check DIR  loads what atomo.torch.save wrote, strict: NAME_like.pt into all, NAME_own.pt where names agree
"""
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):  # torchvision's names
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        inner = cout // 4
        self.conv1, self.bn1 = nn.Conv2d(cin, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, stem, stages, block):
        super().__init__()
        self.conv1, self.bn1, cin = nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), stem
        for s, (cout, count) in enumerate(stages):
            blocks = []
            for b in range(count):
                blocks.append(block(cin, cout, 2 if s > 0 and b == 0 else 1))
                cin = cout
            setattr(self, f"layer{s + 1}", nn.Sequential(*blocks))
        self.fc, self.stages = nn.Linear(cin, 10), len(stages)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for s in range(self.stages):
            x = getattr(self, f"layer{s + 1}")(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class OldNames(nn.Module):  # the same network as resnet20, with names of its own
    def __init__(self):
        super().__init__()
        net = ResNet(16, [(16, 3), (32, 3), (64, 3)], Block)
        self.c, self.b, self.linear_head = net.conv1, net.bn1, None
        self.l = nn.Sequential(*net.layer1, *net.layer2, *net.layer3)
        self.linear_head = net.fc

    def forward(self, x):
        x = self.l(F.relu(self.b(self.c(x))))
        return self.linear_head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(cout), nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.shortcut = None if stride == 1 and cin == cout else nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x):
        y = F.relu(self.bn1(x))
        z = self.conv2(F.relu(self.bn2(self.conv1(y))))
        return z + (x if self.shortcut is None else self.shortcut(y))


def wide_resnet():
    layers, cin = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)], 16
    for s in range(3):
        for b in range(2):
            cout = 4 * 16 * 2 ** s
            layers.append(WideBlock(cin, cout, 2 if s > 0 and b == 0 else 1))
            cin = cout
    return nn.Sequential(*layers, nn.BatchNorm2d(cin), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(cin, 10))


class DenseLayer(nn.Module):
    def __init__(self, cin, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x):
        return torch.cat([x, self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))], 1)


def densenet():
    layers, cin = [nn.Conv2d(3, 24, 3, 1, 1, bias=False)], 24
    for block in range(3):
        for _ in range(6):
            layers.append(DenseLayer(cin, 12))
            cin += 12
        layers += [nn.BatchNorm2d(cin), nn.ReLU()]
        if block < 2:
            layers += [nn.Conv2d(cin, cin // 2, 1, bias=False), nn.AvgPool2d(2)]
            cin //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, 10))


def vgg11():
    layers, cin = [], 3
    for v in [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]:
        if v == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(cin, v, 3, 1, 1), nn.BatchNorm2d(v), nn.ReLU()]
            cin = v
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(),
                         nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def lenet():
    return nn.Sequential(nn.Conv2d(3, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2),
                         nn.ReLU(), nn.Flatten(), nn.Linear(1250, 500), nn.ReLU(), nn.Linear(500, 10))


def alexnet():
    return nn.Sequential(nn.Conv2d(3, 64, 11, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 192, 5, 1, 2),
                         nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(),
                         nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(), nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, 10))


def mobilenet():
    layers, cin = [], 32

    def block(a, b, kernel, **o):
        return [nn.Conv2d(a, b, kernel, bias=False, **o), nn.BatchNorm2d(b), nn.ReLU()]

    layers += block(3, 32, 3, padding=1)
    for i, cout in enumerate([64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]):
        layers += block(cin, cin, 3, padding=1, stride=2 if i in (1, 3, 5, 11) else 1, groups=cin)
        layers += block(cin, cout, 1)
        cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 10))


class TransformerBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        y, n = self.norm1(x), x.shape[1]
        hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
        x = x + self.attention(y, y, y, attn_mask=hidden, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30, 32), nn.Embedding(12, 32)
        self.blocks = nn.Sequential(TransformerBlock(32), TransformerBlock(32))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 30, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions(torch.arange(x.shape[1])))))


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.lstm = nn.Embedding(30, 24), nn.LSTM(24, 24, 2, batch_first=True)
        self.head = nn.Linear(24, 30)

    def forward(self, x):
        return self.head(self.lstm(self.tokens(x))[0])


twins = {
    "lenet": lenet, "alexnet": alexnet, "mlp": mlp, "vgg11": vgg11, "mobilenet": mobilenet, "densenet": densenet,
    "wide_resnet16_4": wide_resnet, "resnet20": lambda: ResNet(16, [(16, 3), (32, 3), (64, 3)], Block),
    "resnet20_old": OldNames, "resnet18": lambda: ResNet(64, [(64, 2), (128, 2), (256, 2), (512, 2)], Block),
    "bottlenecks": lambda: ResNet(8, [(32, 2), (64, 2)], Bottleneck), "transformer": Transformer,
    "tied": lambda: Transformer(tied=True), "lstm": LSTM,
}
own_names = ["wide_resnet16_4", "lenet", "alexnet", "mlp", "vgg11", "mobilenet", "resnet20", "resnet18", "bottlenecks", "transformer",
             "tied", "lstm"]


def make(folder):
    torch.manual_seed(0)
    images, text = torch.randn(2, 3, 32, 32), torch.randint(0, 30, (2, 12))
    for name, twin in twins.items():
        model = twin()
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
                m.num_batches_tracked.fill_(1 + len(name))
        state, x = model.state_dict(), text if name in ("transformer", "tied", "lstm") else images
        if name == "resnet20":  # as a training script on several devices leaves it
            state = {"epoch": 7, "arch": name, "state_dict": {"module." + k: v for k, v in state.items()}}
        if name == "vgg11":
            model.to(memory_format=torch.channels_last)  # strides of the kernels
            state = model.state_dict()
        torch.save(state, f"{folder}/{name}.pt")
        model.eval()
        seen = x.permute(0, 2, 3, 1).contiguous() if x is images else x
        torch.save({"x": seen, "y": model(x).detach()}, f"{folder}/{name}_xy.pt")


def check(folder):
    for name, twin in twins.items():
        given = torch.load(f"{folder}/{name}.pt")
        given = given["state_dict"] if name == "resnet20" else given
        like = torch.load(f"{folder}/{name}_like.pt")
        assert list(like) == list(given), name
        for key in given:
            assert like[key].dtype == given[key].dtype, (name, key)
            assert torch.equal(like[key], given[key]), (name, key)
        kinds = ["like"]
        if name == "resnet20":
            like = {k[len("module."):]: v for k, v in like.items()}
        twin().load_state_dict(like, strict=True)
        if name in own_names:
            own = torch.load(f"{folder}/{name}_own.pt")
            twin().load_state_dict(own, strict=True)
            for key, value in own.items():
                assert torch.equal(value, like[key]), (name, key)
            kinds.append("own")
        if name == "tied":
            assert like["head.weight"].data_ptr() == like["tokens.weight"].data_ptr()
        print(name, *kinds, "equal")


{"make": make, "check": check}[sys.argv[1]](sys.argv[2])
