"""Golden trajectories of the optimizers, from PyTorch (lars, lamb: numpy). Run: /usr/bin/python3 make_optim.py > optim.lua

Parameters w [2,3] and b [3] minimise sum(0.5 c w^2 + sin w) + sum(0.5 b^2 + cos b), c = 1, 2, ..., 6; 50 steps.
"""
import numpy as np
import torch

W0 = np.array([[1.0, -2.0, 0.5], [3.0, 0.1, -0.7]], dtype=np.float32)
B0 = np.array([0.3, -1.5, 2.0], dtype=np.float32)
C = np.arange(1, 7, dtype=np.float32).reshape(2, 3)


def run(make):
    w, b = torch.tensor(W0, requires_grad=True), torch.tensor(B0, requires_grad=True)
    opt, c, path = make([w, b]), torch.tensor(C), []
    for step in range(50):
        opt.zero_grad()
        loss = (0.5 * c * w * w + torch.sin(w)).sum() + (0.5 * b * b + torch.cos(b)).sum()
        loss.backward()
        opt.step()
        if step % 10 == 9:
            path.append(torch.cat([w.flatten(), b]).detach().numpy().copy())
    return path


def lars(lr, momentum, decay, trust):
    w, b = W0.astype(np.float64), B0.astype(np.float64)
    vw, vb, path = np.zeros_like(w), np.zeros_like(b), []
    for step in range(50):
        gw, gb = C * w + np.cos(w), b - np.sin(b)
        nw, ng = np.linalg.norm(w), np.linalg.norm(gw)
        scale = trust * nw / (ng + decay * nw + 1e-8)
        vw = momentum * vw + scale * (gw + decay * w)
        vb = momentum * vb + (gb + decay * b)
        w, b = w - lr * vw, b - lr * vb
        if step % 10 == 9:
            path.append(np.concatenate([w.flatten(), b]))
    return path


def lamb(lr, decay, beta1=0.9, beta2=0.999, eps=1e-6):
    p, path = [W0.astype(np.float64), B0.astype(np.float64)], []
    m, v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
    for step in range(50):
        g = [C * p[0] + np.cos(p[0]), p[1] - np.sin(p[1])]
        for i in range(2):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            r = m[i] / (1 - beta1 ** (step + 1)) / (np.sqrt(v[i] / (1 - beta2 ** (step + 1))) + eps) + decay * p[i]
            p[i] = p[i] - lr * np.linalg.norm(p[i]) / np.linalg.norm(r) * r
        if step % 10 == 9:
            path.append(np.concatenate([p[0].flatten(), p[1]]))
    return path


o = torch.optim
cases = [
    ("sgd", "lr = 0.05", run(lambda p: o.SGD(p, 0.05))),
    ("sgd", "lr = 0.02, momentum = 0.9, weight_decay = 0.01", run(lambda p: o.SGD(p, 0.02, 0.9, weight_decay=0.01))),
    ("sgd", "lr = 0.02, momentum = 0.9, dampening = 0.5", run(lambda p: o.SGD(p, 0.02, 0.9, dampening=0.5))),
    ("sgd", "lr = 0.02, momentum = 0.9, weight_decay = 0.01, nesterov = true",
     run(lambda p: o.SGD(p, 0.02, 0.9, weight_decay=0.01, nesterov=True))),
    ("adam", "lr = 0.05", run(lambda p: o.Adam(p, 0.05))),
    ("adam", "lr = 0.05, beta1 = 0.8, beta2 = 0.99, weight_decay = 0.1",
     run(lambda p: o.Adam(p, 0.05, (0.8, 0.99), weight_decay=0.1))),
    ("adamw", "lr = 0.05, weight_decay = 0.1", run(lambda p: o.AdamW(p, 0.05, weight_decay=0.1))),
    ("adam", "lr = 0.5, betas = {0.8, 0.9}, amsgrad = true", run(lambda p: o.Adam(p, 0.5, (0.8, 0.9), amsgrad=True))),
    ("adamw", "", run(lambda p: o.AdamW(p))),
    ("adamw", "lr = 0.5, amsgrad = true", run(lambda p: o.AdamW(p, 0.5, amsgrad=True))),
    ("lars", "lr = 0.5, momentum = 0.9, weight_decay = 0.01, trust = 0.02", lars(0.5, 0.9, 0.01, 0.02)),
    ("lamb", "lr = 0.02", lamb(0.02, 0)),
    ("lamb", "lr = 0.01, weight_decay = 0.1, beta1 = 0.8, beta2 = 0.99", lamb(0.01, 0.1, 0.8, 0.99)),
]
print("-- Written by make_optim.py.\nreturn {")
for name, options, path in cases:
    print(f'  {{name = "{name}", options = {{{options}}}, path = {{')
    for row in path:
        print("    {" + ", ".join(f"{v:.9g}" for v in row) + "},")
    print("  }},")
print("}")
