"""Golden vectors of losses, activations, norms, attention and recurrent layers, made by PyTorch: writes layers.lua beside
this file. Run with /usr/bin/python3. Images become [N,H,W,C] and convolution weights [out,kh,kw,in] on the way out."""
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(11)
torch.set_default_dtype(torch.float64)
cases = []


def lua(v):
    if isinstance(v, torch.Tensor):
        if v.dim() == 4:
            v = v.permute(0, 2, 3, 1)
        data = ",".join(f"{x:.7g}" for x in v.detach().reshape(-1).tolist())
        kind = "" if v.is_floating_point() else ",dtype='u8'" if v.dtype == torch.uint8 else ",dtype='i32'"
        return "{shape={%s},data={%s}%s}" % (",".join(map(str, v.shape)), data, kind)
    if isinstance(v, dict):
        return "{" + ",".join(f"{k}={lua(x)}" for k, x in v.items()) + "}"
    if isinstance(v, (list, tuple)):
        return "{" + ",".join("false" if x is None else lua(x) for x in v) + "}"
    if isinstance(v, bool):
        return "true" if v else "false"
    if v is None:
        return "nil"
    return repr(v)


def case(name, fn, *inputs, **opts):
    """One call: its inputs, result, a random gradient of the result, and the gradients of the inputs."""
    for t in inputs:
        t.requires_grad_(t.is_floating_point())
    y = fn(*inputs)
    gy = torch.randn_like(y)
    y.backward(gy)
    cases.append(dict(name=name, inputs=inputs, opts=opts, y=y, gy=gy, grads=[t.grad for t in inputs]))


R = torch.randn
labels = torch.tensor([2, 0, -100, 4, 1])
case("cross_entropy", lambda x, t: F.cross_entropy(x, t), R(5, 5), labels)
case("cross_entropy", lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1), R(5, 5), labels, label_smoothing=0.1)
case("cross_entropy", lambda x, t: F.cross_entropy(x, t, label_smoothing=0.3, ignore_index=1, reduction="sum"),
     R(3, 4), torch.tensor([1, 3, 0]), label_smoothing=0.3, ignore_index=1, reduction="sum")
case("cross_entropy", lambda x, t: F.cross_entropy(x.transpose(1, 2), t), R(2, 3, 4), torch.tensor([[0, 3, 1], [2, 2, 0]]))
case("nll_loss", lambda x, t: F.nll_loss(x, t), R(5, 5), labels)
case("nll_loss", lambda x, t: F.nll_loss(x, t, reduction="sum"), R(5, 5), labels, reduction="sum")
weight = torch.rand(5) + 0.5
case("cross_entropy", lambda x, t: F.cross_entropy(x, t, weight), R(5, 5), labels, weight=weight)
case("cross_entropy", lambda x, t: F.cross_entropy(x, t, weight, label_smoothing=0.2), R(5, 5), labels, weight=weight,
     label_smoothing=0.2)
case("cross_entropy", lambda x, t: F.cross_entropy(x, t, weight, label_smoothing=0.2, reduction="sum"), R(5, 5), labels,
     weight=weight, label_smoothing=0.2, reduction="sum")
case("cross_entropy", lambda x, t: F.cross_entropy(x, t, weight, label_smoothing=0.2, reduction="none"), R(5, 5), labels,
     weight=weight, label_smoothing=0.2, reduction="none")
case("nll_loss", lambda x, t: F.nll_loss(x, t, weight), R(5, 5), labels, weight=weight)
case("nll_loss", lambda x, t: F.nll_loss(x, t, weight, reduction="none"), R(5, 5), labels, weight=weight, reduction="none")
case("mse_loss", lambda x, t: F.mse_loss(x, t, reduction="none"), R(3, 5), R(3, 5), reduction="none")
case("bce_with_logits", lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"), R(4), torch.rand(4),
     reduction="none")
case("mse_loss", lambda x, t: F.mse_loss(x, t), R(3, 5), R(3, 5))
case("mse_loss", lambda x, t: F.mse_loss(x, t, reduction="sum"), R(7), R(7), reduction="sum")
case("bce_with_logits", lambda x, t: F.binary_cross_entropy_with_logits(x, t), R(3, 5) * 20, torch.rand(3, 5))
case("bce_with_logits", lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum"), R(4), torch.rand(4),
     reduction="sum")
for name, fn in dict(leaky_relu=F.leaky_relu, gelu=F.gelu, silu=F.silu, tanh=torch.tanh, sigmoid=torch.sigmoid).items():
    case(name, fn, R(5, 7) * 4)
case("gelu", lambda x: F.gelu(x, approximate="tanh"), R(5, 7) * 4, approximate="tanh")
case("layer_norm", lambda x, w, b: F.layer_norm(x, (7,), w, b), R(2, 3, 7) * 3 + 5, R(7), R(7), shape=[7])
case("layer_norm", lambda x, w, b: F.layer_norm(x, (3, 7), w, b), R(5, 3, 7), R(3, 7), R(3, 7), shape=[3, 7])
case("layer_norm", lambda x: F.layer_norm(x, (33,)), R(3, 33), shape=[33])
case("group_norm", lambda x, w, b: F.group_norm(x, 3, w, b), R(2, 6, 5, 3) * 2 + 3, R(6), R(6), groups=3)
case("group_norm", lambda x, w, b: F.group_norm(x, 1, w, b), R(3, 5, 1, 2), R(5), R(5), groups=1)
case("group_norm", lambda x, w, b: F.group_norm(x, 4, w, b), R(2, 4, 3, 3), R(4), R(4), groups=4)
case("batch_norm_1d", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), R(7, 5) * 2 + 1, R(5), R(5))
case("embedding", lambda i, w: F.embedding(i, w), torch.tensor([[1, 3, 1], [0, 6, 3]]), R(7, 5))
case("embedding", lambda i, w: F.embedding(i, w, padding_idx=2), torch.tensor([2, 0, 2, 1]), R(3, 4), padding_idx=2)
for size in [(1, 1), (3, 2), (5, 7), (8, 9)]:
    case("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, size), R(2, 3, 7, 5), size=size)
for o in [{}, dict(stride=2, padding=1, output_padding=1), dict(stride=(2, 3), padding=(1, 0), dilation=(2, 1)),
          dict(stride=2, groups=2, padding=1)]:
    case("conv_transpose2d", lambda x, w, b: F.conv_transpose2d(x, w, b, **o), R(2, 4, 3, 5),
         R(4, 6 // o.get("groups", 1), 3, 2), R(6), **o)


def attention(q, k, v, heads, causal):
    n, t, c = q.shape
    q, k, v = (z.reshape(n, -1, heads, c // heads).transpose(1, 2) for z in (q, k, v))
    s = q @ k.transpose(2, 3) / (c // heads) ** 0.5
    if causal:
        s = s.masked_fill(torch.ones(s.shape[-2:]).tril() == 0, -float("inf"))
    return (s.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c)


for t, s, heads, causal in [(3, 5, 2, False), (5, 5, 1, True), (3, 3, 6, True), (4, 2, 3, True)]:
    case("attention", lambda q, k, v: attention(q, k, v, heads, causal), R(2, t, 6), R(2, s, 6), R(2, s, 6),
         heads=heads, causal=causal)


def module(name, net, run, *inputs, **opts):
    """As case, with the parameters by name among the inputs."""
    for p in net.parameters():
        p.data = R(p.shape) * 0.5
    state = {k: v.detach().clone() for k, v in net.named_parameters()}
    case(name, lambda *x: run(net, *x), *inputs, **opts)
    cases[-1]["state"] = {"['%s']" % k: v for k, v in state.items()}
    cases[-1]["state_grads"] = {"['%s']" % k: p.grad for k, p in net.named_parameters()}


mask = torch.ones(4, 4).triu(1).bool()
module("MultiheadAttention", nn.MultiheadAttention(6, 2), lambda m, x: m(x, x, x, attn_mask=mask)[0], R(4, 3, 6), causal=True)
padded = torch.tensor([[0, 0, 0, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.uint8)
hidden = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]], dtype=torch.uint8)
module("MultiheadAttention", nn.MultiheadAttention(6, 2), lambda m, x: m(x, x, x, key_padding_mask=hidden.bool())[0],
       R(4, 3, 6), masks=dict(key_padding_mask=hidden))
bias = R(3, 5)
module("MultiheadAttention", nn.MultiheadAttention(4, 2, batch_first=True),
       lambda m, q, k, v: m(q, k, v, attn_mask=bias, key_padding_mask=padded.bool())[0], R(2, 3, 4), R(2, 5, 4),
       R(2, 5, 4), batch_first=True, masks=dict(attn_mask=bias, key_padding_mask=padded))
module("MultiheadAttention", nn.MultiheadAttention(4, 2, bias=False, batch_first=True), lambda m, q, k, v: m(q, k, v)[0],
       R(2, 3, 4), R(2, 5, 4), R(2, 5, 4), bias=False, batch_first=True)
for name, kind in dict(LSTM=nn.LSTM, GRU=nn.GRU).items():
    module(name, kind(3, 5), lambda m, x: m(x)[0], R(4, 2, 3))
    module(name, kind(4, 3, num_layers=2, batch_first=True, bias=False), lambda m, x: m(x)[0], R(2, 5, 4), num_layers=2,
           batch_first=True, bias=False)
    module(name, kind(3, 4, 2, bidirectional=True), lambda m, x: m(x)[0], R(4, 2, 3), num_layers=2, bidirectional=True)
module("LSTM", nn.LSTM(3, 5, 2), lambda m, x, h, c: torch.cat([torch.cat(m(x, (h, c))[1], 0), m(x, (h, c))[0]]),
       R(2, 3, 3), R(2, 3, 5), R(2, 3, 5), num_layers=2)
module("GRU", nn.GRU(3, 5, 2), lambda m, x, h: torch.cat([m(x, h)[1], m(x, h)[0]]), R(2, 3, 3), R(2, 3, 5), num_layers=2)

# ---- options of layers and losses ----

for o in [dict(kernel=3, stride=2, ceil_mode=True), dict(kernel=(2, 3), stride=(2, 2), padding=(1, 0), ceil_mode=True),
          dict(kernel=3, stride=2, padding=1, dilation=2, ceil_mode=True), dict(kernel=5, stride=4, ceil_mode=True)]:
    k = {n: v for n, v in o.items() if n != "kernel"}
    case("max_pool2d", lambda x: F.max_pool2d(x, o["kernel"], **k), R(2, 3, 8, 7), **o)
    cases[-1]["indices"] = F.max_pool2d(cases[-1]["inputs"][0].detach(), o["kernel"], return_indices=True, **k)[1]
for o in [dict(kernel=3, stride=2, ceil_mode=True), dict(kernel=3, stride=2, padding=1, ceil_mode=True),
          dict(kernel=3, stride=2, padding=1, count_include_pad=False), dict(kernel=3, stride=3, divisor_override=5),
          dict(kernel=(3, 2), stride=(2, 3), padding=(1, 0), ceil_mode=True, count_include_pad=False),
          dict(kernel=5, stride=4, padding=2, ceil_mode=True)]:
    k = {n: v for n, v in o.items() if n != "kernel"}
    case("avg_pool2d", lambda x: F.avg_pool2d(x, o["kernel"], **k), R(2, 3, 8, 7), **o)
for o in [dict(padding="same"), dict(padding="valid", stride=2), dict(padding="same", dilation=(3, 2), groups=2)]:
    case("conv2d", lambda x, w, b: F.conv2d(x, w, b, **o), R(2, 4, 6, 7), R(6, 4 // o.get("groups", 1), 4, 3), R(6), **o)


def conv_layer(kernel, **o):
    net = nn.Conv2d(2, 3, kernel, **o)
    module("Conv2d", net, lambda m, x: m(x), R(2, 2, 5, 6), kernel=kernel, **o)


conv_layer((2, 3), padding="same", padding_mode="reflect")
conv_layer(3, padding=(2, 1), stride=2, padding_mode="replicate", bias=False)
conv_layer(3, padding=2, dilation=2, padding_mode="circular")
conv_layer(4, padding="same")
case("group_norm", lambda x: F.group_norm(x, 2), R(2, 6, 3), groups=2, affine=False)
cases[-1].update({k: cases[-1][k].transpose(1, 2) for k in ("y", "gy")}, inputs=[cases[-1]["inputs"][0].transpose(1, 2)],
                 grads=[cases[-1]["grads"][0].transpose(1, 2)])


def batch_norm(steps, **o):
    """y of the last of some training steps, then of evaluation, and the running statistics in between."""
    net, x = nn.BatchNorm2d(3, **o), R(3, 3, 2, 2) * 2 + 1

    def run(x):
        for i in range(steps):
            y = net(x * (i + 1))
        return torch.cat([y, net.eval()(x)])

    case("BatchNorm2d", run, x, steps=steps, layer={k: False if v is None else v for k, v in o.items()})
    if net.running_mean is not None:
        cases[-1]["running"] = [net.running_mean, net.running_var]


batch_norm(3, momentum=None)
batch_norm(2, affine=False)
batch_norm(2, track_running_stats=False, affine=False)
weight, positive = torch.rand(3, 5) + 0.5, torch.rand(5) * 3 + 0.2
for o in [dict(pos_weight=positive), dict(weight=weight, reduction="sum"), dict(weight=weight[:, :1], pos_weight=positive),
          dict(weight=weight, pos_weight=positive, reduction="none")]:
    x, t = R(3, 5) * 6, torch.rand(3, 5)
    case("bce_with_logits", lambda x, t: F.binary_cross_entropy_with_logits(x, t, **o), x, t, **o)
soft, weight = torch.rand(4, 5).softmax(-1), torch.rand(5) + 0.5
for o in [dict(), dict(label_smoothing=0.2, weight=weight), dict(reduction="none", weight=weight), dict(reduction="sum")]:
    case("cross_entropy", lambda x, t: F.cross_entropy(x, t, **o), R(4, 5), soft.clone(), **o)
module("MultiheadAttention", nn.MultiheadAttention(6, 2, kdim=3, vdim=5), lambda m, q, k, v: m(q, k, v)[0], R(4, 2, 6),
       R(3, 2, 3), R(3, 2, 5), kdim=3, vdim=5)

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "layers.lua"), "w") as out:
    out.write("-- Made by make_layers.py with PyTorch %s: do not edit. luacheck: ignore\nreturn {\n" % torch.__version__)
    out.write("".join(lua(c) + ",\n" for c in cases) + "}\n")
