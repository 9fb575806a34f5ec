"""Golden values of functions at the edges of their domains, made by PyTorch and NumPy: writes edges.lua beside this file.
Run with /usr/bin/python3. A case has inputs, the result, and the gradients of the inputs for a gradient of the result
of 1, 1.5, 2, 2.5, 3, 1, ... Images become [N,H,W,C], convolution weights [out,kh,kw,in]. f64: the true value, rounded once,
where atomo accumulates in double and PyTorch in float."""
import math
import os

import numpy as np
import torch
import torch.nn.functional as F

INF, NAN, MAX = math.inf, math.nan, 3.4028234663852886e38
EDGES = [0.0, -0.0, 1, -1, 2.5, -0.5, 1e-45, 1e-38, -1e-38, 1e30, -1e30, MAX, -MAX, INF, -INF, NAN]
STEEP = EDGES + [88.6, -88.6, 100, -100, 20, -20, 200, -200]
lines = []


def number(v):
    if v != v:
        return "nan"
    if v in (INF, -INF):
        return "inf" if v > 0 else "-inf"
    return "-0" if v == 0 and math.copysign(1, v) < 0 else f"{v:.9g}"


def lua(t, images=True):
    if t.dim() == 4 and images:
        t = t.permute(0, 2, 3, 1)
    kind = "" if t.is_floating_point() else ",dtype='u8'" if t.dtype == torch.uint8 else ",dtype='i32'"
    values = t.detach().float() if t.is_floating_point() else t
    text = " ".join(number(v) for v in values.reshape(-1).tolist())
    return "{shape={%s},data='%s'%s}" % (",".join(map(str, t.shape)), text, kind)


def seed_for(y):
    n = y.numel()
    g = torch.tensor([1 + i % 5 / 2 for i in range(n)], dtype=y.dtype)
    if y.dim() == 4:  # counted in atomo's order of elements
        a, c, h, w = y.shape
        return g.reshape(a, h, w, c).permute(0, 3, 1, 2)
    return g.reshape(y.shape)


def case(name, fn, *inputs, f64=False, backward=True):
    xs = []
    for x in inputs:
        x = x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float32)
        if x.is_floating_point():
            x = x.float()
        xs.append(x)
    run = [x.double() if f64 and x.is_floating_point() else x.clone() for x in xs]
    for x in run:
        x.requires_grad_(backward and x.is_floating_point())
    y = fn(*run)
    grads = ""
    if backward and y.requires_grad:
        y.backward(seed_for(y))
        grads = ",g={%s}" % ",".join(lua(x.grad) if x.grad is not None else "false" for x in run)
    lines.append("{name=%r,x={%s},y=%s%s}," % (name, ",".join(map(lua, xs)), lua(y), grads))


def pairs(values):
    return torch.tensor(values).reshape(-1, 1), torch.tensor(values).reshape(1, -1)


# ---- elementwise -----------------------------------------------------------------------------------------------------

HALVES = EDGES + [0.5, 1.5, -1.5, 3.5, -2.5, 8388607.5, 16777217.0]
for op in "floor ceil round trunc".split():
    case("T." + op, getattr(torch, op), HALVES)
for op in "abs log sqrt square reciprocal sign neg relu".split():
    case("T." + op, getattr(torch, op), EDGES)
for op in "exp tanh sigmoid".split():
    case("T." + op, getattr(torch, op), STEEP)
for op in "sin cos".split():
    case("T." + op, getattr(torch, op), [v for v in EDGES if not 1 < abs(v) < INF] + [2.5, 100, -1000])
case("T.clamp", lambda x: x.clamp(-1, 1), EDGES)
case("T.clamp/low", lambda x: x.clamp(min=0), EDGES)
case("T.clamp/high", lambda x: x.clamp(max=2.5), EDGES)

case("T.clamp_min", lambda x: x.clamp_min(-1), EDGES)
case("T.clamp_max", lambda x: x.clamp_max(2.5), EDGES)

A, B = pairs(EDGES)
for op in "add sub mul div maximum minimum".split():
    case("T." + op, getattr(torch, op), A, B)
for op in "eq ne lt le gt ge".split():
    case("T." + op, lambda a, b, op=op: getattr(torch, op)(a, b).float(), A, B, backward=False)
case("T.remainder", torch.remainder, A, B, f64=True)
for s, text in [(2.5, "2.5"), (-1, "-1"), (0, "0"), (INF, "inf")]:
    case(f"T.remainder/{text}", lambda x, s=s: torch.remainder(x, s), EDGES, f64=True)
    case(f"T.remainder/{text}-", lambda x, s=s: torch.remainder(torch.tensor(float(s)).to(x), x), EDGES, f64=True)
for op in "and or xor".split():
    case("T.logical_" + op, lambda a, b, op=op: getattr(torch, "logical_" + op)(a, b).float(), A, B, backward=False)
for op in "logical_not isnan isinf isfinite".split():
    case("T." + op, lambda x, op=op: getattr(torch, op)(x).float(), EDGES, backward=False)
P, Q = pairs([0.0, -0.0, 1, -1, 2, -2, 3, 0.5, -0.5, 1e30, INF, -INF, NAN])
case("T.pow", torch.pow, P, Q)
for s in [0, 1, 2, 3, -1, 0.5]:  # 0.5 as a tensor: with a number PyTorch takes sqrt, unlike C
    case(f"T.pow/{s}", lambda x, s=s: torch.pow(x, torch.full_like(x, s)) if s == 0.5 else x ** s, EDGES)
for s in [0, 2, -2]:
    case(f"T.pow/{s}^", lambda x, s=s: torch.pow(torch.tensor(float(s)), x), [0.0, -0.0, 1, 2, 3, -1, -2, 0.5, 100, -200,
                                                                           INF, -INF, NAN])
for s, text in [(0, "0"), (2.5, "2.5"), (INF, "inf"), (NAN, "nan")]:
    scalar = torch.tensor(float(s))
    case(f"T.add/{text}", lambda x, s=s: x + s, EDGES)
    case(f"T.sub/{text}", lambda x, s=s: x - s, EDGES)
    case(f"T.sub/{text}-", lambda x, s=s: s - x, EDGES)
    case(f"T.mul/{text}", lambda x, s=s: x * s, EDGES)
    case(f"T.div/{text}", lambda x, s=s: x / s, EDGES)
    case(f"T.div/{text}/", lambda x, s=s: torch.tensor(float(s)) / x, EDGES)
    case(f"T.maximum/{text}", lambda x, s=scalar: torch.maximum(x, s), EDGES)
    case(f"T.minimum/{text}", lambda x, s=scalar: torch.minimum(x, s), EDGES)
    for op in "eq ne lt le gt ge".split():
        case(f"T.{op}/{text}", lambda x, s=s, op=op: getattr(torch, op)(x, s).float(), EDGES, backward=False)

# ---- reductions ------------------------------------------------------------------------------------------------------

ROWS = [[1, 2, 2, 0], [NAN, 1, NAN, 3], [INF, -INF, 1, 2], [INF, INF, 1, -1], [0, 0, 0, 0], [-0.0, 0, -0.0, 0],
        [-INF, -INF, -INF, -INF], [MAX, MAX, -MAX, 1], [1e-45, -1e-45, 1e-45, 0], [-1, -1, -3, -3], [1e30, 1e30, 0, 1]]
PLAIN = [r for r in ROWS if all(math.isfinite(v) for v in r)]
PRODUCTS = [[1, 2, -3, 0.5], [0, 2, 3, 4], [0, 5, 0, 1], [1e30, 1e30, 1e-30, 1e-30], [MAX, 2, 0.25, 1], [1e-45, 1e30, 1, 1],
            [NAN, 1, 0, 2], [-0.0, 1, 1, 1]]
# without ties of large numbers: PyTorch takes exp(x - result), and the result rounds to x
SUMMED = ROWS[:7] + [[MAX, 1, -MAX, 1], [1e-45, -1e-45, 1e-45, 0], [-1, -1, -3, -3], [1e30, 0, 0, 1], [100, -100, 99, 88.5]]
NORMS = [[3, 4, 0, -1], [0, 0, 0, 0], [1e30, -1e30, 1e29, 0], [1e-38, 1e-45, 0, 0], [3e37, 1, 0, 0], [-2, 2, -2, 2],
         [1, NAN, 0, 2]]
for d in (0, 1):
    case(f"T.sum/{d + 1}", lambda x, d=d: x.sum(d), ROWS, f64=True)
    case(f"T.mean/{d + 1}", lambda x, d=d: x.mean(d), ROWS, f64=True)
    for op in ("max", "min"):
        case(f"T.{op}/{d + 1}", lambda x, d=d, op=op: getattr(x, op)(d)[0], ROWS)
        case(f"T.arg{op}/{d + 1}", lambda x, d=d, op=op: (getattr(torch, "arg" + op)(x, d) + 1).int(), ROWS,
             backward=False)
    for op in ("amax", "amin"):
        case(f"T.{op}/{d + 1}", lambda x, d=d, op=op: getattr(x, op)(d), ROWS[:1] + ROWS[2:])
    case(f"T.count_nonzero/{d + 1}", lambda x, d=d: x.count_nonzero(d).int(), ROWS, backward=False)
for op in ("amax", "amin"):
    case(f"T.{op}/all", lambda x, op=op: getattr(x, op)(), ROWS[4:])
case("T.count_nonzero", lambda x: x.count_nonzero().int(), ROWS, backward=False)
case("T.nonzero", lambda x: (x.nonzero() + 1).int(), ROWS, backward=False)
for i, row in enumerate(ROWS):
    for op in ("sum", "mean"):
        case(f"T.{op}/row{i}", lambda x, op=op: getattr(x, op)(), row, f64=True)
    for op in ("max", "min"):
        case(f"T.{op}/row{i}", lambda x, op=op: getattr(x, op)(), row)
        case(f"T.arg{op}/row{i}", lambda x, op=op: (getattr(torch, "arg" + op)(x) + 1).int(), row, backward=False)
    for p, text in [(2, "2"), (1, "1"), (INF, "inf"), (3, "3"), (0.5, "0.5")]:
        case(f"T.norm/{text}/row{i}", lambda x, p=p: x.norm(p), row, f64=True)
    case(f"T.dot/row{i}", torch.dot, row, [2, 0, -1, 0.5], f64=True)

for d in (0, 1):
    case(f"T.cumsum/{d + 1}", lambda x, d=d: x.cumsum(d), ROWS, f64=True)
    case(f"T.cumprod/{d + 1}", lambda x, d=d: x.cumprod(d), PRODUCTS[:3] + PRODUCTS[4:6] + PRODUCTS[7:], f64=True)
    case(f"T.prod/{d + 1}", lambda x, d=d: x.prod(d), PRODUCTS, f64=True)
    case(f"T.logsumexp/{d + 1}", lambda x, d=d: x.logsumexp(d), SUMMED, f64=True)
    for p, text in [(2, "2"), (1, "1"), (INF, "inf"), (3, "3"), (0.5, "0.5")]:
        case(f"T.norm/{text} along {d + 1}", lambda x, p=p, d=d: torch.linalg.vector_norm(x, p, d), NORMS, f64=True)
case("T.cumsum/one", lambda x: x.cumsum(0), 3.5)
case("T.cumprod/one", lambda x: x.cumprod(0), 3.5)
case("T.cumprod/nan", lambda x: x.cumprod(1), [[1, NAN, 0, 2], [INF, 2, -1, 1], [INF, 0, 1, 1]], backward=False)
for i, row in enumerate(PRODUCTS):
    case(f"T.prod/row{i}", lambda x: x.prod(), row, f64=True)
case("T.prod/inf", lambda x: x.prod(), [INF, 2, 1, -1], backward=False)
for i, row in enumerate(SUMMED):
    case(f"T.logsumexp/row{i}", lambda x: x.logsumexp(0), row, f64=True)

# ---- elements in another place -----------------------------------------------------------------------------------------

CUBE = torch.arange(24.0).reshape(2, 3, 4) - 5
for dims in ((0,), (1, 2), (-1, 0)):
    text = " ".join(str(d + 1 if d >= 0 else d) for d in dims)
    case(f"T.flip/{text}", lambda x, dims=dims: x.flip(dims), CUBE)
for shift, d in ((1, 0), (-2, 1), (5, -1), (-7, None)):
    text = str(shift) if d is None else f"{shift} {d + 1 if d >= 0 else d}"
    case(f"T.roll/{text}", lambda x, s=shift, d=d: x.roll(s, d) if d is not None else x.roll(s), CUBE)
for times, d in ((2, 0), (3, -1), (2, None), (0, 1)):
    text = str(times) if d is None else f"{times} {d + 1 if d >= 0 else d}"
    case(f"T.repeat_interleave/{text}", lambda x, n=times, d=d: x.repeat_interleave(n, d), CUBE)
case("T.repeat_interleave/list", lambda x: x.repeat_interleave(torch.tensor([2, 0, 1]), 1), CUBE)
for counts in ((2,), (2, 1, 3), (0, 1)):
    case("T.tile/" + " ".join(map(str, counts)), lambda x, c=counts: x.tile(c), CUBE)
case("T.tile/more", lambda x: x.tile(2, 1, 3), CUBE[1])
WILD = [[1, NAN, 3], [INF, 5, -INF], [-0.0, 8, 9], [10, NAN, 12]]
for op in ("tril", "triu"):
    for k in (0, 1, -2, 9):
        case(f"T.{op}/{k}", lambda x, op=op, k=k: getattr(x, op)(k), WILD)
    case(f"T.{op}/batch", lambda x, op=op: getattr(x, op)(), CUBE)
for k in (0, 1, -2, 9):
    case(f"T.diagonal/{k}", lambda x, k=k: x.diagonal(k, -2, -1), WILD)
    if k < 9:
        case(f"T.diag/{k}", lambda x, k=k: torch.diag(x, k), WILD)
for k in (0, 1, -2):
    case(f"T.diagonal/batch {k}", lambda x, k=k: x.diagonal(k, -2, -1), CUBE)
    case(f"T.diag/vector {k}", lambda x, k=k: torch.diag(x, k), WILD[1])
case("T.trace", torch.trace, [[1, NAN, 3], [INF, 5, -INF], [-0.0, 8, 9]])
case("T.outer", torch.outer, EDGES, [1, -0.0, 2.5, 1e30, INF, NAN])
case("T.masked_fill", lambda x, m: x.masked_fill(m != 0, 7), CUBE, torch.tensor([[1, 0, NAN, -1], [0, 0, 0, 0], [0, -0.0, 1e-45, 1]]))
for k, name in ((0, "first"), (1, "second")):
    case(f"atomo.meshgrid/{name}", lambda a, b, k=k: torch.meshgrid(a, b, indexing="ij")[k] * 1, [1, NAN, INF], [2, -0.0])
    case(f"atomo.meshgrid/{name} xy", lambda a, b, k=k: torch.meshgrid(a, b, indexing="xy")[k] * 1, [1, NAN, INF], [2, -0.0])
case("T.masked_select", lambda x, m: x.masked_select(m != 0), CUBE, torch.tensor([[1, 0, NAN, -1], [0, 0, 0, 0], [0, -0.0, 1e-45, 1]]))
for d, k in ((0, [1, 0, 1]), (1, [2, 2, 0, 1]), (-1, [3])):
    shape = list(CUBE.shape)
    shape[d] = len(k)
    case(f"T.index_add/{d + 1 if d >= 0 else d}", lambda x, i, s, d=d: x.index_add(d, i, s), CUBE,
         torch.tensor(k).int(), torch.arange(float(np.prod(shape))).reshape(shape) / 2)
PLACES = torch.tensor([[[1, 0, 1], [0, 0, 1]], [[1, 1, 1], [0, 1, 0]]])
for d in (0, 1, -1):
    case(f"T.scatter_add/{d + 1 if d >= 0 else d}", lambda x, i, s, d=d: x.scatter_add(d, i.long(), s), CUBE, PLACES.int(),
         torch.arange(12.0).reshape(2, 2, 3) / 4)

# ---- products --------------------------------------------------------------------------------------------------------

case("T.matmul", torch.matmul, [[1, 0, 2], [0, -1, 0.5]], [[1, INF], [NAN, 0], [3, 4]])
case("T.matmul/zero row", torch.matmul, [[0, 0], [1e30, 1e30], [-0.0, 1]], [[0, 1e30], [1e30, 1]])
case("T.matmul/vectors", torch.matmul, [1, 2, INF], [0, 1, 1])
case("T.matmul/batch", torch.matmul, [[[1, 2]], [[INF, 0]]], [[[3], [4]], [[1], [NAN]]])
case("F.linear", F.linear, [[1, 2, 0], [INF, 1, 0], [NAN, 0, 1e30]], [[1, 0, 2], [-1, 3, 0.5]], [0.5, -1e30])

# ---- activations -----------------------------------------------------------------------------------------------------

case("F.relu", F.relu, EDGES)
case("F.leaky_relu", F.leaky_relu, EDGES)
case("F.leaky_relu/0.5", lambda x: F.leaky_relu(x, 0.5), EDGES)
case("F.gelu", F.gelu, STEEP + [3, -3, 5, -5])
case("F.gelu/tanh", lambda x: F.gelu(x, approximate="tanh"), STEEP + [3, -3, 5, -5])
case("F.silu", F.silu, STEEP)
# in double: PyTorch's float kernels of these round more than once
for op in "softplus elu mish logsigmoid".split():
    case("F." + op, getattr(F, op), STEEP, f64=True)
case("F.selu", F.selu, STEEP, f64=True)
case("F.softplus/2", lambda x: F.softplus(x, 2), STEEP, f64=True)
case("F.softplus/1 5", lambda x: F.softplus(x, 1, 5), STEEP + [5, 4.99, 5.01], f64=True)
case("F.elu/0.5", lambda x: F.elu(x, 0.5), STEEP, f64=True)
KINKS = EDGES + [3, -3, 6, 2.75, -2.75, 7, -7, 2]
for op in "hardtanh relu6 hardswish hardsigmoid".split():
    case("F." + op, getattr(F, op), KINKS)
case("F.hardtanh/-2 2.5", lambda x: F.hardtanh(x, -2, 2.5), KINKS)
for mode in ("reflect", "circular", "replicate"):
    case("F.pad/" + mode, lambda x, m=mode: F.pad(x, (2, 1), mode=m), [[[1, NAN, 3], [INF, -0.0, 1e-45]]])
for name, p in {"1 2": (1, 2), "0 1 2 0": (0, 1, 2, 0), "-1 1": (-1, 1), "-1 -1 0 -1": (-1, -1, 0, -1), "0 0 1 1 1 0":
                (0, 0, 1, 1, 1, 0), "": ()}.items():
    case("F.pad/" + name, lambda x, p=p: F.pad(x, p), CUBE)
case("F.pad/value", lambda x: F.pad(x, (1, 1), value=7), [1, NAN, INF])
case("F.one_hot", lambda i: F.one_hot(i.long(), 4).float(), torch.tensor([[0, 3], [1, 1], [2, 0]]).int(), backward=False)
case("F.one_hot/largest", lambda i: F.one_hot(i.long()).float(), torch.tensor([0, 2]).int(), backward=False)
case("F.tanh", torch.tanh, STEEP)
case("F.sigmoid", torch.sigmoid, STEEP)
LOGITS = [[0, 1, 2], [0, -INF, 1], [-INF, -INF, -INF], [INF, 0, 1], [NAN, 0, 1], [1e30, -1e30, 1e30], [MAX, MAX, -MAX],
          [100, -100, 0], [5, 5, 5], [-INF, 3, -INF], [0, -103, -88], [1e-45, -0.0, 0]]
for d in (0, 1):
    case(f"F.softmax/{d + 1}", lambda x, d=d: F.softmax(x, d), LOGITS)
    case(f"F.log_softmax/{d + 1}", lambda x, d=d: F.log_softmax(x, d), LOGITS, f64=True)

VECTORS = [[3, 4, 0], [0, 0, 0], [1e30, -1e30, 1e29], [1e-20, 0, 0], [-1, 1, -1]]
for p, text in [(2, ""), (1, "/1"), (INF, "/inf")]:
    case("F.normalize" + text, lambda x, p=p: F.normalize(x, p, 1), VECTORS, f64=True)
case("F.normalize/first", lambda x: F.normalize(x, 2, 0), VECTORS, f64=True)
case("F.cosine_similarity", lambda a, b: F.cosine_similarity(a, b, 1), VECTORS[:1] + VECTORS[2:],
     [[4, -3, 1], [1, -1, 0], [1e-20, 1e-20, 0], [1, -1, 1]], f64=True)
case("F.cosine_similarity/one", lambda a, b: F.cosine_similarity(a, b, 1), VECTORS[:1] + VECTORS[4:], [[2], [-3]], f64=True)

# ---- losses ----------------------------------------------------------------------------------------------------------

y = torch.tensor([2, 2, 0, 0, 1, 0, 1, 0, 2, 1, 0, 2])
case("F.cross_entropy/none", lambda x, t: F.cross_entropy(x, t.long(), reduction="none"), LOGITS, y.int(), f64=True)
case("F.cross_entropy/smooth", lambda x, t: F.cross_entropy(x, t.long(), reduction="none", label_smoothing=0.3), LOGITS,
     y.int(), f64=True)
w = torch.tensor([2.0, 0.5, 1.5])
case("F.cross_entropy/weight", lambda x, t: F.cross_entropy(x, t.long(), w.to(x), reduction="none"), LOGITS, y.int(),
     f64=True)
case("F.cross_entropy/weight smooth",
     lambda x, t: F.cross_entropy(x, t.long(), w.to(x), reduction="none", label_smoothing=0.3), LOGITS, y.int(), f64=True)
case("F.cross_entropy/issue", lambda x, t: F.cross_entropy(x, t.long()), [[0, -INF, 1]], torch.tensor([2]).int(), f64=True)
case("F.cross_entropy/hit", lambda x, t: F.cross_entropy(x, t.long(), reduction="none"), [[0, -INF, 1], [1, 2, -INF]],
     torch.tensor([1, 2]).int(), f64=True)
FINITE = [[0, 1, 2], [1e30, -1e30, 0], [100, -100, 0], [-1000, 1000, 999], [5, 5, 5], [0, -103, -88]]
t = torch.tensor([0, -100, 1, 2, -100, 1])
for reduction in ("mean", "sum"):
    for smooth in (0, 0.1):
        case(f"F.cross_entropy/ignore {reduction} {smooth}", lambda x, t, r=reduction, s=smooth:
             F.cross_entropy(x, t.long(), reduction=r, label_smoothing=s), FINITE, t.int(), f64=True)
        case(f"F.cross_entropy/ignore weight {reduction} {smooth}", lambda x, t, r=reduction, s=smooth:
             F.cross_entropy(x, t.long(), w.to(x), reduction=r, label_smoothing=s), FINITE, t.int(), f64=True)
    case(f"F.nll_loss/{reduction}", lambda x, t, r=reduction: F.nll_loss(x, t.long(), w.to(x), reduction=r), FINITE,
         t.int(), f64=True)
case("F.nll_loss/none", lambda x, t: F.nll_loss(x, t.long(), reduction="none"), LOGITS, y.int(), f64=True)
case("F.cross_entropy/probabilities", lambda x, t: F.cross_entropy(x, t, reduction="none"), FINITE,
     [[1, 0, 0], [0, 0.5, 0.5], [0, 1, 0], [0.2, 0.3, 0.5], [0, 0, 0], [1, 1, 1]], f64=True)
U, V = torch.tensor(STEEP), torch.tensor([0, 1, 0.5]).reshape(-1, 1)
U2, V2 = torch.broadcast_tensors(U, V)
case("F.mse_loss/none", lambda a, b: F.mse_loss(a, b, reduction="none"), U2.contiguous(), V2.contiguous())
case("F.mse_loss", F.mse_loss, FINITE, [[0, 0, 1]] * 6, f64=True)
ERRORS = [0.0, -0.0, 1, -1, 0.25, -0.25, 2.5, 1e-45, 1e-30, 1e30, MAX, INF, -INF, NAN]
for name, fn in {"l1_loss": F.l1_loss, "smooth_l1_loss": F.smooth_l1_loss, "huber_loss": F.huber_loss}.items():
    case(f"F.{name}/none", lambda a, b, fn=fn: fn(a, b, reduction="none"), ERRORS, [0.0] * len(ERRORS), f64=True)
    case(f"F.{name}", lambda a, b, fn=fn: fn(a, b), FINITE, [[0, 0, 1.5]] * 6, f64=True)
    case(f"F.{name}/sum", lambda a, b, fn=fn: fn(a, b, reduction="sum"), FINITE, [[0, 0, 1.5]] * 6, f64=True)
case("F.smooth_l1_loss/2.5", lambda a, b: F.smooth_l1_loss(a, b, reduction="none", beta=2.5), ERRORS, [0.0] * len(ERRORS), f64=True)
case("F.smooth_l1_loss/0", lambda a, b: F.smooth_l1_loss(a, b, reduction="none", beta=0), ERRORS[2:], [0.0] * 12, f64=True)
case("F.huber_loss/0.25", lambda a, b: F.huber_loss(a, b, reduction="none", delta=0.25), ERRORS, [0.0] * len(ERRORS), f64=True)
case("F.bce_with_logits/none", lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction="none"), U2.contiguous(),
     V2.contiguous(), f64=True)
case("F.bce_with_logits", lambda a, b: F.binary_cross_entropy_with_logits(a, b, w.to(a), pos_weight=w.to(a) + 1), FINITE,
     [[0, 1, 0.5]] * 6, f64=True)

# ---- pooling: [N,C,H,W] here -------------------------------------------------------------------------------------------

img = torch.tensor([[[[1, 1, NAN, 2], [1, 1, 3, 3], [-INF, -INF, 0, -0.0], [-INF, -INF, -0.0, 0]],
                     [[INF, INF, -1, -1], [INF, 0, -1, -2], [MAX, MAX, 1e-45, 0], [-MAX, 1, 0, 1e-45]]]])
case("F.max_pool2d", lambda x: F.max_pool2d(x, 2), img)
case("F.max_pool2d/overlap", lambda x: F.max_pool2d(x, 3, 1, 1), img)
case("F.max_pool2d/17 channels", lambda x: F.max_pool2d(x, 2), torch.cat([img] * 9, 1)[:, :17].contiguous())
FIN = torch.tensor([[[[1, 1, 0, 2], [1, 1, 3, -2], [-4, 1e30, 0, -0.0], [5, 6, -0.0, 1e-45]]]])
for name, x in (("", FIN), ("/edges", img)):
    case("F.avg_pool2d" + name, lambda x: F.avg_pool2d(x, 2), x)
    case("F.adaptive_avg_pool2d" + name, lambda x: F.adaptive_avg_pool2d(x, 3), x, f64=True)
    case("F.global_avg_pool" + name, lambda x: x.mean((2, 3)), x, f64=True)

SCALED = torch.tensor([[[[1, 2, -4], [0.5, 1e30, 8]], [[-1e30, 3, 0], [1e-45, -0.0, 5]]]])
for name, kw in {"nearest 2": dict(scale_factor=2), "nearest size": dict(size=(3, 2)), "nearest down": dict(size=(1, 2)),
                 "bilinear 2": dict(scale_factor=2, mode="bilinear"), "bilinear size": dict(size=(5, 4), mode="bilinear"),
                 "bilinear 1.5": dict(scale_factor=(1.5, 0.7), mode="bilinear"),
                 "bilinear corners": dict(size=(4, 5), mode="bilinear", align_corners=True),
                 "bilinear corners 1": dict(size=(1, 5), mode="bilinear", align_corners=True)}.items():
    case("F.interpolate/" + name, lambda x, kw=kw: F.interpolate(x, **kw), SCALED, f64=True)

# ---- normalisation -----------------------------------------------------------------------------------------------------

NORMED = [[3, 3, 3, 3], [0, 0, 0, 0], [1, 2, 3, 4], [1e30, -1e30, 0, 1], [1e-38, -1e-38, 0, 0], [3e37, 3e37, -3e37, -3e37],
          [1e6, 1e6 + 1, 1e6, 1e6 - 1], [1e19, 1e19, -1e19, 2e19]]
gamma, beta = [1, 2, -0.5, 0], [0, 1, -1, 3]
case("F.layer_norm", lambda x, g, b: F.layer_norm(x, (4,), g, b), NORMED[:3] + NORMED[4:5] + NORMED[6:7], gamma, beta,
     f64=True)
case("F.layer_norm/large", lambda x: F.layer_norm(x, (4,)), NORMED, f64=True)
case("F.layer_norm/nan", lambda x: F.layer_norm(x, (2,)), [[NAN, 1], [INF, 1], [1, 2]], f64=True)
COLUMNS = torch.tensor(NORMED).t().contiguous()
case("F.batch_norm", lambda x, g, b: F.batch_norm(x, None, None, g, b, True), COLUMNS[:, [0, 1, 2, 4]].contiguous(), gamma,
     beta, f64=True)
case("F.batch_norm/large", lambda x: F.batch_norm(x, None, None, None, None, True), COLUMNS, f64=True)
case("F.batch_norm/nan", lambda x: F.batch_norm(x, None, None, None, None, True), [[NAN, 1, INF], [1, 2, 0]], f64=True)
case("F.batch_norm/relu", lambda x, g, b: F.relu(F.batch_norm(x, None, None, g, b, True)), COLUMNS[:, :3].contiguous(),
     [1, 1, 1], [0, -1, 0.5], f64=True)
case("F.batch_norm/eval", lambda x: F.batch_norm(x, torch.tensor([0, 1, 2, 0.0]).to(x), torch.tensor([0, 1, 1e30, 1]).to(x)),
     [[0, 1, 2, INF], [1, -1, 1e30, NAN]], f64=True)
case("F.group_norm", lambda x, g, b: F.group_norm(x, 2, g, b), NORMED[:3] + NORMED[4:5] + NORMED[6:7], gamma, beta, f64=True)
case("F.group_norm/large", lambda x: F.group_norm(x, 2), NORMED, f64=True)

# ---- the rest of the layers ----------------------------------------------------------------------------------------------

cx = torch.tensor([1, 0, 2, INF, 1, 1, 0, -1, 1e30, 0, 1, NAN, 1, 2, 3, 4.0]).reshape(1, 1, 4, 4)
cw = torch.tensor([1, 2, 3, 0.5, -1, 0.25, 2, 1]).reshape(2, 1, 2, 2)
case("F.conv2d", lambda x, w, b: F.conv2d(x, w, b), cx, cw, [0.5, -1])
case("F.conv2d/zeros", lambda x, w: F.conv2d(x, w, padding=1), torch.zeros(1, 1, 3, 3), torch.ones(1, 1, 3, 3))
case("F.conv_transpose2d", lambda x, w: F.conv_transpose2d(x, w, stride=2), cx, cw.permute(1, 0, 2, 3).contiguous())
case("F.embedding", lambda i, w: F.embedding(i.long(), w), torch.tensor([0, 2, 2]).int(), [[1, INF], [2, 3], [NAN, -0.0]])


def attention(q, k, v, mask=None):
    s = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])
    if mask is not None:
        s = s + mask.to(s)
    p = F.softmax(s, 2)
    return (p.masked_fill(s == -INF, 0) if mask is not None else p) @ v


q = [[[1, 0], [100, -100], [0, 0]]]
k, v = [[[1, 1], [100, 3], [-2, 0]]], [[[1, 2], [3, -4], [5, 6]]]
case("F.scaled_dot_product_attention", attention, q, k, v, f64=True)
case("F.scaled_dot_product_attention/mask",
     lambda q, k, v: attention(q, k, v, torch.tensor([[0, -INF, 0], [-1e9, 0, -1e9], [0, 0, -INF]])), q, k, v, f64=True)
case("F.scaled_dot_product_attention/nan", attention, [[[1, NAN], [1, 0]]], [[[1, 1], [INF, 3]]], [[[1, 2], [3, 4]]])


def cell(kind, x, wi, wh, n):
    net = getattr(torch.nn, kind)(x.shape[2], n, bias=False).to(x.dtype)
    del net.weight_ih_l0, net.weight_hh_l0
    net.weight_ih_l0, net.weight_hh_l0 = wi, wh
    net._flat_weights = [wi, wh]
    return net(x)[0]


seq = [[[1, 0], [100, -100]], [[1e30, 0], [0, 0]], [[-1, 0.5], [-200, 200]]]
case("F.lstm", lambda x, a, b: cell("LSTM", x, a, b, 1), seq, [[1, 1], [2, -1], [0.5, 0], [1, -1]], [[1], [0], [-1], [2]],
     f64=True)
case("F.gru", lambda x, a, b: cell("GRU", x, a, b, 1), seq, [[1, 1], [2, -1], [0.5, 0]], [[1], [0], [-1]], f64=True)

# ---- linear algebra (NumPy in double) ------------------------------------------------------------------------------------


def plain(name, fn, x):
    case(name, lambda t: torch.from_numpy(np.ascontiguousarray(fn(t.detach().numpy().astype(np.float64)))), x,
         backward=False)


MATRICES = {"": [[1, 2, 3], [4, 5, 6.5]], "zero": [[0, 0], [0, 0], [0, 0]], "zero rows": [[0, 0, 0], [1, 2, 3], [0, 0, 0]],
            "rank 1": [[1, 2], [2, 4], [3, 6]], "large": [[1e30, 0], [0, 3e38]], "small": [[1e-38, 0], [1e-38, 2e-38]],
            "row": [[3, 4, 0]], "column": [[0], [-2]], "equal": [[2, 0], [0, 2]]}
for name, m in MATRICES.items():
    plain("atomo.svd/" + name, lambda a: np.linalg.svd(a, compute_uv=False), m)
    plain("atomo.qr/" + name, lambda a: np.abs(np.linalg.qr(a)[1].diagonal()), m)
for name, m in {"": [[2, 1], [1, 3]], "unsymmetric": [[1, 100], [5, 2]], "zero": [[0, 0], [0, 0]],
                "large": [[1e30, 1e30], [1e30, -1e30]], "rank 1": [[1, 2, 3], [2, 4, 6], [3, 6, 9]],
                "equal": [[2, 0, 0], [0, 2, 0], [0, 0, -2]]}.items():
    plain("atomo.eigh/" + name, lambda a: np.linalg.eigh(a, "L")[0], m)
SIGNALS = {"even": [[1, 2, 3, 4], [0, -0.0, 0, 0]], "odd": [[1, -1, 0.5]], "one": [[7]], "large": [[1e30, -1e30, 1e30, 0]],
           "nan": [[1, NAN, 0, 0]]}
for name, x in SIGNALS.items():
    plain("atomo.rfft/" + name, lambda a: np.stack([np.fft.rfft(a).real, np.fft.rfft(a).imag], -1), x)
for name, n, x in [("even", 4, [[[1, 9], [2, 1], [3, 7]]]), ("odd", 5, [[[1, 0], [2, 1], [3, -1]]]), ("one", 1, [[[5, 1]]])]:
    plain(f"atomo.irfft/{name}", lambda a, n=n: np.fft.irfft(a[..., 0] + 1j * a[..., 1], n), x)

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "edges.lua")
with open(path, "w", encoding="ascii") as f:
    f.write("-- Made by make_edges.py (PyTorch %s).\nreturn {\n%s\n}\n" % (torch.__version__, "\n".join(lines)))
print(len(lines), "cases")
