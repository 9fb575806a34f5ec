--- A small case of every differentiable operator and layer, for specs that test all of them (operators_spec.lua,
-- out_of_memory_spec.lua). A new operator or layer needs an entry here; otherwise the specs fail.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F
local randn = atomo.randn

local M = {}

local function positive(...) return atomo.rand(...):add_(0.5) end

--- Returns a tensor of distinct values, at least 0.3 apart in a scrambled order: finite differences do not cross
--- a kink of ReLU or max.
function M.spread(...)
  local t = atomo.empty(...)
  local p, n = t:data(), t:numel()
  for i = 0, n - 1 do p[i] = ((i * 7919) % n - n / 2 + 0.25) * 0.3 end
  return t
end

local spread = M.spread

local function labels() return atomo.tensor({2, 0, 1}, "i32") end

--- {name, function of tensors, function that makes its inputs, options of gradcheck}
M.operators = {
  {"add, sub, mul, div", function(a, b) return ((a + b) * a - b) / b end,
    function() return randn(2, 1), positive(1, 3) end},
  {"add, sub, mul, div, pow of a number", function(a) return ((3 - (a + 2)) * 2 / 3) ^ 2 + 1 / a end,
    function() return positive(3) end},
  {"pow of a tensor", function(a, b) return a ^ b end, function() return positive(2, 1), randn(1, 3) end},
  {"maximum, minimum", function(a, b) return a:maximum(b) + a:minimum(b) * 2 + a:maximum(0) * a:minimum(4) end,
    function() return atomo.tensor {1, 5, -2}, atomo.tensor {2, 3, -1} end},
  {"remainder", function(a, b) return a % b + a % 0.7 + 2 % b end,
    function() return atomo.tensor {{0.5, -1.2}, {2.6, 3.3}}, atomo.tensor {0.8, 1.3} end},
  {"exp, log, sqrt, square, reciprocal, sin, cos", function(a)
    return a:exp():log():sqrt():square():reciprocal():sin():cos()
  end, function() return positive(3) end},
  {"abs, sign, floor, ceil, round, trunc, relu, clamp, tanh, sigmoid of a tensor", function(a)
    return a:abs() * a:sign() + a:floor() + a:ceil() * a:round() * a:trunc() + a:relu() * a:clamp(-1, 1) +
      a:tanh() * a:sigmoid()
  end, function() return atomo.tensor {1.4, -2.4, 0.6} end},
  {"view, permute, narrow, expand, clone", function(a)
    return a:view(3, 2):t():narrow(2, 1, 2):contiguous():view(1, 4):expand(2, 4) * 2
  end, function() return randn(2, 3) end},
  {"cat, index_select", function(a, b) return atomo.cat({a, b}, 1):index_select(1, {3, 1, 3}) end,
    function() return randn(2, 3), randn(1, 3) end},
  {"cumsum, prod, logsumexp, norm along a dimension", function(a)
    return a:cumsum(1) * a:prod(2, true) + a:prod() + a:logsumexp(2, true) * a:norm(2, 1) + a:norm(3, 2, true)
  end, function() return atomo.tensor {{0.5, -1.25, 2}, {1.5, 0.75, -0.6}} end},
  {"index_add, scatter_add, masked_select", function(a, b)
    local k = atomo.tensor({{2, 2}, {1, 3}}, "i32")
    return a:index_add(1, {2, 2}, b):scatter_add(2, k, b):masked_select(atomo.tensor {0, 1, 1})
  end, function() return randn(2, 3), randn(2, 3) end},
  {"normalize, cosine_similarity", function(a, b)
    return F.normalize(a):sum(1) * F.cosine_similarity(a, b, {dim = 1})
  end, function() return randn(2, 3), randn(2, 1) end},
  {"cumprod, amax, amin, diagonal, diag, trace", function(a)
    local diagonals = a:diagonal(1):sum() * a:diag():square():diag(1):sum() * a:trace()
    return a:cumprod(1) * a:amax(2, true) + a:amin(1) + diagonals
  end, function() return atomo.tensor {{0.5, -1.25, 0}, {1.5, 0.75, -0.6}, {-0.3, 0, 2}} end},
  {"roll, repeat_interleave, masked_fill, unbind, meshgrid, outer", function(a)
    local y = a:roll(1, 2):repeat_interleave(2, 1):masked_fill(atomo.tensor {0, 1, 0}, 2)
    local rows = a:unbind()
    return y * atomo.meshgrid({rows[1], rows[2]})[2]:narrow(1, 1, 1) + rows[1]:outer(rows[2]):sum()
  end, function() return randn(2, 3) end},
  {"pad, interpolate", function(x)
    local y = F.pad(F.pad(x, {0, 1, -1, 1}), {1, 1, 2, 0}, "reflect")
    return F.interpolate(y, {size = {3, 2}}) * F.interpolate(y, {scale_factor = {1.5, 0.4}, mode = "bilinear"})
  end, function() return randn(1, 2, 4, 3) end},
  {"softplus, elu, selu, mish, logsigmoid", function(x)
    return F.softplus(x, 2) + F.softplus(x) * F.elu(x, 0.7) + F.selu(x) * F.mish(x) + F.logsigmoid(x)
  end, function() return spread(3, 3) end},
  {"hardtanh, relu6, hardswish, hardsigmoid", function(x)
    return F.hardtanh(x, -2.2, 0.8) + F.relu6(x) * F.hardswish(x) + F.hardsigmoid(x)
  end, function() return spread(3, 3) * 2 end},
  {"l1_loss, smooth_l1_loss, huber_loss", function(x, t)
    return F.l1_loss(x, t) + F.smooth_l1_loss(x, t, {beta = 0.5}) + F.huber_loss(x, t, {delta = 2, reduction = "sum"})
  end, function() return spread(3, 2), atomo.zeros(3, 2) end},
  {"where, std", function(a, b) return atomo.where(atomo.tensor {{1, 0, 1}}, a, b) + b:std() end,
    function() return randn(2, 1), randn(3) end},
  {"changes in place", function(a, b, c)
    local y = a * 1
    local row, wide = y:select(1, 2), y:narrow(2, 1, 1):expand(2, 3)
    row:copy_(b)
    y:narrow(2, 2, 1):mul_(c)
    y:select(2, 3):narrow(1, 1, 1):fill_(3)
    return y * row * wide
  end, function() return randn(2, 3), randn(3), positive(1) end},
  {"sum, mean, max, min", function(a) return a:sum(1) + a:mean() + (a:max(1)) + (a:min(1)) end,
    function() return atomo.tensor {{1, 5, 2}, {9, 3, 4}} end},
  {"dot, norm, matmul", function(a, b) return a:matmul(b):norm() + a:flatten():dot(b:flatten()) end,
    function() return randn(3, 2), randn(2, 3) end},
  {"rfft, irfft", function(a, b) return atomo.rfft(a):square():sum() + atomo.irfft(b, 4) * atomo.irfft(b, 5):sum() end,
    function() return randn(2, 5), randn(3, 2) end},
  {"conv2d", function(x, w, b) return F.conv2d(x, w, b, {padding = 1, stride = 2, groups = 2}) end,
    function() return randn(2, 3, 3, 4), randn(2, 3, 3, 2), randn(2) end},
  {"conv_transpose2d", function(x, w, b) return F.conv_transpose2d(x, w, b, {stride = 2, output_padding = 1}) end,
    function() return randn(1, 2, 2, 2), randn(2, 2, 2, 3), randn(3) end},
  {"linear", F.linear, function() return randn(2, 3), randn(2, 3), randn(2) end},
  {"batch_norm", function(x, w, b, r) return F.batch_norm(x, w, b, {training = true, relu = true, residual = r}) end,
    function() return randn(5, 2), positive(2), atomo.tensor {8, -8}, randn(5, 2) end, {tolerance = 4e-3}},
  {"layer_norm", function(x, w, b) return F.layer_norm(x, 5, w, b) end,
    function() return randn(2, 5), randn(5), randn(5) end},
  {"group_norm", function(x, w, b) return F.group_norm(x, 2, w, b) end,
    function() return randn(2, 3, 4), randn(4), randn(4) end},
  {"relu", F.relu, function() return spread(3, 3) end},
  {"leaky_relu", F.leaky_relu, function() return spread(3, 3) end},
  {"gelu, silu, tanh, sigmoid", function(x) return F.gelu(x) + F.gelu(x, "tanh") * F.silu(x) + F.tanh(F.sigmoid(x)) end,
    function() return randn(3) end},
  {"conv2d that keeps the size", function(x, w) return F.conv2d(x, w, nil, {padding = "same"}) end,
    function() return randn(1, 3, 2, 2), randn(2, 2, 3, 2) end},
  {"norms without weights", function(x) return F.group_norm(x, 2) + F.batch_norm(x, nil, nil, {training = true}) end,
    function() return randn(3, 2, 4) end, {tolerance = 4e-3}},
  {"softmax, log_softmax", function(x) return F.softmax(x) * F.log_softmax(x, 1) end,
    function() return randn(2, 3) end},
  {"max_pool2d", function(x) return F.max_pool2d(x, 3, {stride = 2, padding = 1}) end,
    function() return spread(1, 3, 4, 2) end},
  {"max_pool2d and avg_pool2d of windows that fit in part", function(x)
    return F.max_pool2d(x, 3, {stride = 2, padding = 1, ceil_mode = true}) *
      F.avg_pool2d(x, 3, {stride = 2, padding = 1, ceil_mode = true, count_include_pad = false}) +
      F.avg_pool2d(x, 2, {padding = 1, ceil_mode = true, divisor_override = 3})
  end, function() return spread(1, 3, 4, 2) end},
  {"avg_pool2d", function(x) return F.avg_pool2d(x, 2) end, function() return randn(1, 4, 3, 2) end},
  {"global_avg_pool", F.global_avg_pool, function() return randn(2, 2, 3, 2) end},
  {"adaptive_avg_pool2d", function(x) return F.adaptive_avg_pool2d(x, {2, 3}) end,
    function() return randn(1, 3, 4, 2) end},
  {"dropout", function(x)
    F.dropout_stream(0, 5)
    return F.dropout(x, 0.3)
  end, function() return randn(3, 3) end},
  {"embedding", function(w) return F.embedding(labels(), w) end, function() return randn(3, 2) end},
  {"attention", function(q, k, v) return F.scaled_dot_product_attention(q, k, v, {heads = 2}) end,
    function() return randn(2, 3, 4), randn(2, 2, 4), randn(2, 2, 4) end},
  {"lstm", function(x, wi, wh, bi, bh, h, c) return F.lstm(x, wi, wh, bi, bh, h, c) end, function()
    return randn(3, 2, 2), randn(8, 2), randn(8, 2), randn(8), randn(8), randn(2, 2), randn(2, 2)
  end},
  {"gru", function(x, wi, wh, bi, bh, h) return F.gru(x, wi, wh, bi, bh, h) end, function()
    return randn(3, 2, 2), randn(6, 2), randn(6, 2), randn(6), randn(6), randn(2, 2)
  end},
  {"cross_entropy", function(x) return F.cross_entropy(x, labels(), {label_smoothing = 0.1}) end,
    function() return randn(3, 4) end},
  {"linear_cross_entropy", function(x, w, b)
    return (F.linear_cross_entropy(x, w, labels(), {bias = b, label_smoothing = 0.1, ignore_index = 1}))
  end, function() return randn(3, 2), randn(4, 2), randn(4) end},
  {"nll_loss", function(x) return F.nll_loss(x, labels()) end, function() return randn(3, 4) end},
  {"mse_loss", F.mse_loss, function() return randn(3, 2), randn(3, 2) end},
  {"bce_with_logits", F.bce_with_logits, function() return randn(3, 2), atomo.rand(3, 2) end},
  {"bce_with_logits, weighted", function(x, t)
    return F.bce_with_logits(x, t, {weight = atomo.tensor {{2}, {0.5}}, pos_weight = atomo.tensor {3, 0.2, 1}})
  end, function() return randn(2, 3), atomo.rand(2, 3) end},
  {"cross_entropy of probabilities", function(x, t)
    return F.cross_entropy(x, t, {label_smoothing = 0.1, weight = atomo.tensor {2, 0.5, 1}, reduction = "none"})
  end, function() return randn(2, 3), atomo.rand(2, 3) end},
}

local function image() return randn(2, 4, 4, 2) end
local function rows() return randn(5, 2) end
local function sequence() return randn(3, 2, 4) end

--- Makes a loss of a linear layer's results.
local function loss_of(loss, target)
  return function()
    local sum = nn.Sequential {nn.Linear(2, 3), function(x) return loss(x, target()) end}
    return sum, randn(3, 2)
  end
end

--- name in atomo.nn -> function that returns the layer, its input and options of gradcheck
M.layers = {
  Conv2d = function() return nn.Conv2d(2, 2, 3, {padding = 1}), image() end,
  ConvTranspose2d = function() return nn.ConvTranspose2d(2, 3, 2, {stride = 2}), image() end,
  BatchNorm1d = function() return nn.BatchNorm1d(2), rows(), {tolerance = 4e-3} end,
  BatchNorm2d = function() return nn.BatchNorm2d(2), image(), {tolerance = 4e-3} end,
  LayerNorm = function() return nn.LayerNorm(4), sequence() end,
  GroupNorm = function() return nn.GroupNorm(2, 4), sequence() end,
  Linear = function() return nn.Linear(2, 3), rows() end,
  Embedding = function()
    local index = atomo.tensor({0, 3, 1, 3, 2}, "i32")
    local sum = nn.Residual(nn.Linear(2, 3))
    sum.rows = nn.Embedding(4, 3)
    sum.shortcut = function() return sum.rows(index) end
    return sum, rows()
  end,
  MaxPool2d = function() return nn.MaxPool2d(2), spread(1, 4, 4, 2) end,
  AvgPool2d = function() return nn.AvgPool2d(2), image() end,
  AdaptiveAvgPool2d = function() return nn.AdaptiveAvgPool2d(3), image() end,
  GlobalAvgPool = function() return nn.GlobalAvgPool(), image() end,
  Dropout = function()
    local layer = nn.Dropout(0.4)
    return nn.Sequential {function(x)
      F.dropout_stream(0, 5)
      return layer(x)
    end}, rows()
  end,
  Dropout2d = function()
    local layer = nn.Dropout2d(0.4)
    return nn.Sequential {function(x)
      F.dropout_stream(0, 5)
      return layer(x)
    end}, image()
  end,
  Flatten = function() return nn.Flatten(), image() end,
  ReLU = function() return nn.ReLU(), spread(3, 3) end,
  Identity = function() return nn.Identity(), rows() end,
  ReLU6 = function() return nn.ReLU6(), spread(3, 3) end,
  SELU = function() return nn.SELU(), spread(3, 3) end,
  ELU = function() return nn.ELU(0.5), spread(3, 3) end,
  Softplus = function() return nn.Softplus(2), rows() end,
  Mish = function() return nn.Mish(), rows() end,
  Hardtanh = function() return nn.Hardtanh(-2, 2), spread(3, 3) end,
  Hardswish = function() return nn.Hardswish(), spread(3, 3) end,
  Hardsigmoid = function() return nn.Hardsigmoid(), spread(3, 3) end,
  LogSigmoid = function() return nn.LogSigmoid(), rows() end,
  Upsample = function() return nn.Upsample {size = {3, 5}, mode = "bilinear"}, image() end,
  ModuleList = function()
    local list = nn.ModuleList {nn.Linear(2, 3), nn.Tanh()}
    local net = nn.Residual(function(x) return list[2](list[1](x)):narrow(2, 1, 2) end)
    net.list = list
    return net, rows()
  end,
  LeakyReLU = function() return nn.LeakyReLU(), spread(3, 3) end,
  GELU = function() return nn.GELU(), rows() end,
  SiLU = function() return nn.SiLU(), rows() end,
  Tanh = function() return nn.Tanh(), rows() end,
  Sigmoid = function() return nn.Sigmoid(), rows() end,
  Softmax = function() return nn.Softmax(), rows() end,
  LogSoftmax = function() return nn.LogSoftmax(), rows() end,
  MultiheadAttention = function() return nn.MultiheadAttention(4, 2, {causal = true}), sequence() end,
  LSTM = function() return nn.LSTM(4, 2), sequence() end,
  GRU = function() return nn.GRU(4, 2), sequence() end,
  Sequential = function() return nn.Sequential {nn.Linear(2, 3), nn.Tanh()}, rows() end,
  Residual = function() return nn.Residual(nn.Linear(2, 2)), rows() end,
  Concat = function() return nn.Concat {nn.Linear(2, 2), function(x) return x end}, rows() end,
  CrossEntropyLoss = loss_of(nn.CrossEntropyLoss {label_smoothing = 0.1}, labels),
  NLLLoss = loss_of(nn.NLLLoss {reduction = "sum"}, labels),
  L1Loss = loss_of(nn.L1Loss(), function() return atomo.full({3, 3}, 9) end),
  SmoothL1Loss = loss_of(nn.SmoothL1Loss {beta = 0.5}, function() return atomo.full({3, 3}, 9) end),
  HuberLoss = loss_of(nn.HuberLoss {delta = 20}, function() return atomo.full({3, 3}, 9) end),
  MSELoss = loss_of(nn.MSELoss(), function() return atomo.ones(3, 3) end),
  BCEWithLogitsLoss = loss_of(nn.BCEWithLogitsLoss {pos_weight = atomo.full({3}, 2)}, function()
    return atomo.full({3, 3}, 0.3)
  end),
  Checkpoint = function() return nn.Checkpoint(nn.Sequential {nn.Linear(2, 3), nn.Tanh()}), rows() end,
}

--- Calls see(name, function of tensors, function that makes {inputs, options}) for every case.
function M.each(see)
  for _, c in ipairs(M.operators) do
    see(c[1], c[2], function() return {c[3]()}, c[4] end)
  end
  local names = {}
  for name in pairs(M.layers) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local layer
    see("nn." .. name, function(x) return layer(x) end, function()
      local x, opts
      layer, x, opts = M.layers[name]()
      local inputs = {x}
      for _, p in ipairs(layer:parameters()) do inputs[#inputs + 1] = p end
      return inputs, opts
    end)
  end
end

return M
