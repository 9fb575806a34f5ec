"""Golden vectors of the layers, made by PyTorch: writes nn.lua beside this file. Run with /usr/bin/python3.

Images become [N,H,W,C] and convolution weights [out,kh,kw,in] on the way out; numbers keep 8 digits (double inside).
"""
import os

import torch
import torch.nn.functional as F

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)


def lua(v):
    if isinstance(v, torch.Tensor):
        if v.dim() == 4:
            v = v.permute(0, 2, 3, 1)  # NCHW -> NHWC, and OIHW -> OHWI
        data = ",".join(f"{x:.8g}" for x in v.detach().reshape(-1).tolist())
        return "{shape={%s},data={%s}}" % (",".join(map(str, v.shape)), data)
    if isinstance(v, dict):
        return "{" + ",".join(f"{k}={lua(x)}" for k, x in v.items()) + "}"
    if isinstance(v, (list, tuple)):
        return "{" + ",".join(lua(x) for x in v) + "}"
    if isinstance(v, bool):
        return "true" if v else "false"
    return repr(v)


def case(fn, inputs, **more):
    """Runs fn on named inputs, and backward from a random gy; returns everything by name."""
    for t in inputs.values():
        t.requires_grad_(t.is_floating_point())
    y = fn(**inputs)
    gy = torch.randn_like(y)
    y.backward(gy)
    out = dict(inputs, y=y, gy=gy, **more)
    out.update({"g" + k: t.grad for k, t in inputs.items() if t.grad is not None})
    return out


def conv(n, h, w, cin, cout, kh, kw, bias=True, **o):
    groups = o.get("groups", 1)
    t = dict(x=torch.randn(n, cin, h, w), w=torch.randn(cout, cin // groups, kh, kw))
    if bias:
        t["b"] = torch.randn(cout)
    return case(lambda x, w, b=None: F.conv2d(x, w, b, **o), t, opts=o)


def batch_norm(shape, training, relu, residual):
    c = shape[1]
    t = dict(x=torch.randn(shape) * 2 + 3, w=torch.rand(c) + 0.5, b=torch.randn(c) * 0.3)
    if residual:
        t["r"] = torch.randn(shape)
    before = dict(running_mean=torch.randn(c), running_var=torch.rand(c) + 0.5)
    after = {k: v.clone() for k, v in before.items()}

    def run(x, w, b, r=None):
        y = F.batch_norm(x, after["running_mean"], after["running_var"], w, b, training, 0.1, 1e-5)
        y = y if r is None else y + r
        return F.relu(y) if relu else y

    return case(run, t, before=before, after=after, training=training, relu=relu)


def cross_entropy(n, c):
    labels = torch.randint(0, c, (n,))
    x = (torch.randn(n, c) * 3).requires_grad_()
    loss = F.cross_entropy(x, labels)
    loss.backward()
    return dict(x=x, labels=labels.tolist(), loss=loss.item(), gx=x.grad)


golden = {
    "conv2d": [
        conv(2, 5, 5, 3, 4, 3, 3, padding=1),
        conv(1, 1, 1, 1, 1, 1, 1),
        conv(2, 7, 5, 3, 5, 3, 3, bias=False, stride=2, padding=1),
        conv(1, 7, 8, 2, 3, 3, 2, stride=(2, 1), padding=(1, 0)),
        conv(2, 7, 7, 4, 6, 3, 3, padding=2, dilation=2, groups=2),
        conv(1, 9, 6, 2, 2, 3, 2, padding=(2, 1), dilation=(2, 3)),
        conv(2, 5, 5, 4, 4, 3, 3, bias=False, padding=1, groups=4),
        conv(3, 4, 4, 5, 7, 1, 1, bias=False, stride=2),
    ],
    "batch_norm": [
        batch_norm((3, 4, 3, 5), training, relu, residual)
        for training in (True, False) for relu in (False, True) for residual in (False, True)
    ],
    "linear": [
        case(lambda x, w, b: F.linear(x, w, b), dict(x=torch.randn(5, 7), w=torch.randn(3, 7), b=torch.randn(3))),
        case(lambda x, w: F.linear(x, w), dict(x=torch.randn(2, 3, 5), w=torch.randn(4, 5))),
    ],
    "max_pool2d": [
        case(lambda x: F.max_pool2d(x, 2), dict(x=torch.randn(2, 3, 6, 5)), kernel=2, opts={}),
        case(lambda x: F.max_pool2d(x, 3, 2, 1), dict(x=torch.randn(2, 3, 7, 6)), kernel=3, opts=dict(stride=2, padding=1)),
        case(lambda x: F.max_pool2d(x, (3, 2), (1, 2), (1, 0), (2, 1)), dict(x=torch.randn(1, 2, 7, 6)), kernel=(3, 2),
             opts=dict(stride=(1, 2), padding=(1, 0), dilation=(2, 1))),
    ],
    "avg_pool2d": [
        case(lambda x: F.avg_pool2d(x, 2), dict(x=torch.randn(2, 3, 6, 5)), kernel=2, opts={}),
        case(lambda x: F.avg_pool2d(x, 3, 2, 1), dict(x=torch.randn(2, 3, 7, 6)), kernel=3, opts=dict(stride=2, padding=1)),
    ],
    "softmax": [case(lambda x, d=d: F.softmax(x, d - 1), dict(x=torch.randn(3, 4, 5)), dim=d) for d in (1, 2, 3)],
    "log_softmax": [case(lambda x, d=d: F.log_softmax(x, d - 1), dict(x=torch.randn(3, 4, 5)), dim=d) for d in (1, 3)],
    "cross_entropy": [cross_entropy(1, 2), cross_entropy(7, 5)],
}

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "nn.lua"), "w") as out:
    out.write("-- Made by make_nn.py with PyTorch %s: do not edit. luacheck: ignore\nreturn {\n" % torch.__version__)
    for name, cases in golden.items():
        out.write(f"{name} = {{\n" + "".join(lua(c) + ",\n" for c in cases) + "},\n")
    out.write("}\n")
