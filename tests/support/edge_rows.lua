--- Functions of atomo for the cases of tests/golden/edges.lua, with tolerances. A case's row has its name, or the
-- longest part of its name before a "/".
local atomo = require "atomo"
local F, nn = atomo.F, atomo.nn

local M = {}

local rows = {}

--- Adds a row: fn(...) is called with the case's inputs; ulp: tolerance of results and gradients; abs: absolute
--- tolerance.
local function row(names, fn, ulp, abs, opts)
  for name in names:gmatch "[^,]+" do
    local entry = {fn = fn, ulp = ulp or 0, abs = abs or 0}
    for k, v in pairs(opts or {}) do entry[k] = v end
    rows[name] = entry
  end
end

--- Returns the row for a case's name.
function M.of(name)
  while name do
    if rows[name] then return rows[name] end
    name = name:match "^(.+)/[^/]*$"
  end
end
M.rows = rows

-- ---- methods of tensors ------------------------------------------------------------------------------------------

local unary = {elementwise = 1, fused = true}
local function method(names, ulp, abs, opts)
  for name in names:gmatch "%S+" do
    row("T." .. name, function(x, ...) return x[name](x, ...) end, ulp, abs, opts or unary)
  end
end
method("abs square reciprocal sign floor neg relu", 1)
method("ceil round trunc", 0)
method("sqrt log exp sin cos", 3)
method("tanh sigmoid", 4, 1e-7)
row("T.clamp", function(x) return x:clamp(-1, 1) end, 0, 0, unary)
row("T.clamp/low", function(x) return x:clamp(0) end, 0, 0, unary)
row("T.clamp/high", function(x) return x:clamp(nil, 2.5) end, 0, 0, unary)

row("T.clamp_min", function(x) return x:clamp_min(-1) end, 0, 0, {elementwise = 1})
row("T.clamp_max", function(x) return x:clamp_max(2.5) end, 0, 0, {elementwise = 1})

local binary = {elementwise = 2, fused = true}
method("add sub mul div maximum minimum", 2, 0, binary)
method("eq ne lt le gt ge", 0, 0, binary)
method("pow", 3, 0, binary)
method("remainder", 0, 0, binary)
for text, s in pairs {["2.5"] = 2.5, ["-1"] = -1, ["0"] = 0, inf = math.huge} do
  row("T.remainder/" .. text, function(x) return x % s end, 0, 0, unary)
  row(("T.remainder/%s-"):format(text), function(x) return s % x end, 0, 0, unary)
end
method("logical_and logical_or logical_xor", 0, 0, {elementwise = 2})
method("logical_not isnan isinf isfinite", 0, 0, {elementwise = 1})
for _, s in ipairs {0, 1, 2, 3, -1, 0.5} do
  row("T.pow/" .. s, function(x) return x ^ s end, 3, 0, unary)
end
for _, s in ipairs {0, 2, -2} do
  row("T.pow/" .. s .. "^", function(x) return s ^ x end, 3, 0, unary)
end
for text, s in pairs {["0"] = 0, ["2.5"] = 2.5, inf = math.huge, nan = 0 / 0} do
  for _, name in ipairs {"add", "sub", "mul", "div", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"} do
    row("T." .. name .. "/" .. text, function(x) return x[name](x, s) end, 1, 0, unary)
  end
  row("T.sub/" .. text .. "-", function(x) return s - x end, 1, 0, unary)
  row("T.div/" .. text .. "/", function(x) return s / x end, 2, 0, unary)
end

method("nonzero trace outer", 0, 0, {})
row("T.masked_fill", function(x, mask) return x:masked_fill(mask, 7) end)
for _, name in ipairs {"sum", "mean", "max", "min", "amax", "amin", "argmax", "argmin", "count_nonzero"} do
  row("T." .. name, function(x) return (x[name](x)) end, 1)
  for d = 1, 2 do
    row(("T.%s/%d"):format(name, d), function(x) return (x[name](x, d)) end, 1)
  end
end
for text, p in pairs {["1"] = 1, ["2"] = 2, ["3"] = 3, ["0.5"] = 0.5, inf = math.huge} do
  row("T.norm/" .. text, function(x) return x:norm(p) end, 3)
end
for _, name in ipairs {"cumsum", "cumprod", "prod", "logsumexp"} do
  local ulp = name == "logsumexp" and 4 or 1
  row("T." .. name, function(x) return x[name](x, name:find "^cum" and 1 or nil) end, ulp, 3e-7)
  for d = 1, 2 do
    row(("T.%s/%d"):format(name, d), function(x) return x[name](x, d) end, ulp, 3e-7)
  end
end
for text, p in pairs {["1"] = 1, ["2"] = 2, ["3"] = 3, ["0.5"] = 0.5, inf = math.huge} do
  for d = 1, 2 do
    row(("T.norm/%s along %d"):format(text, d), function(x) return x:norm(p, d) end, 4)
  end
end
method("dot", 1, 0, {})

-- The part of a case's name behind the "/" is its list of numbers.
for name, lists in pairs {flip = {"1", "2 3", "-1 1"}, tile = {"2", "2 1 3", "0 1"},
  roll = {"1 1", "-2 2", "5 -1", "-7"}, repeat_interleave = {"2 1", "3 -1", "2", "0 2"},
  diagonal = {"0", "1", "-2", "9"}, diag = {"0", "1", "-2"},
  tril = {"0", "1", "-2", "9"}, triu = {"0", "1", "-2", "9"}} do
  for _, list in ipairs(lists) do
    local numbers = {}
    for word in list:gmatch "%S+" do numbers[#numbers + 1] = tonumber(word) end
    row(("T.%s/%s"):format(name, list), function(x) return x[name](x, unpack(numbers)) end)
  end
end
row("T.cumprod/nan", function(x) return x:cumprod(2) end)
row("T.repeat_interleave/list", function(x) return x:repeat_interleave({2, 0, 1}, 2) end)
for _, k in ipairs {0, 1, -2} do
  row("T.diagonal/batch " .. k, function(x) return x:diagonal(k) end)
  row("T.diag/vector " .. k, function(x) return x:diag(k) end)
end
for k, name in ipairs {"first", "second"} do
  row("atomo.meshgrid/" .. name, function(a, b) return atomo.meshgrid({a, b})[k] * 1 end)
  row(("atomo.meshgrid/%s xy"):format(name), function(a, b) return atomo.meshgrid({a, b}, "xy")[k] * 1 end)
end
row("T.tile/more", function(x) return x:tile {2, 1, 3} end)
method("tril triu masked_select", 0, 0, {})
for _, d in ipairs {1, 2, -1} do
  row("T.index_add/" .. d, function(x, i, s) return x:index_add(d, i + 1, s) end)
  row("T.scatter_add/" .. d, function(x, i, s) return x:scatter_add(d, i + 1, s) end)
end
method("matmul", 1, 0, {})

-- ---- functions -----------------------------------------------------------------------------------------------------

local function activation(names, ulp, abs)
  for name in names:gmatch "%S+" do row("F." .. name, F[name], ulp, abs, {elementwise = 1}) end
end
activation("relu leaky_relu", 1)
activation("gelu silu tanh sigmoid", 6, 1e-6)
activation("softplus elu selu mish logsigmoid", 6, 1e-6)
activation("hardtanh relu6 hardswish hardsigmoid", 2)
row("F.softplus/2", function(x) return F.softplus(x, 2) end, 6, 1e-6, {elementwise = 1})
row("F.softplus/1 5", function(x) return F.softplus(x, 1, 5) end, 6, 1e-6, {elementwise = 1})
row("F.elu/0.5", function(x) return F.elu(x, 0.5) end, 6, 1e-6, {elementwise = 1})
row("F.hardtanh/-2 2.5", function(x) return F.hardtanh(x, -2, 2.5) end, 0, 0, {elementwise = 1})
for _, mode in ipairs {"reflect", "circular", "replicate"} do
  row("F.pad/" .. mode, function(x) return F.pad(x, {2, 1}, mode) end)
end
for _, list in ipairs {"1 2", "0 1 2 0", "-1 1", "-1 -1 0 -1", "0 0 1 1 1 0", ""} do
  local pad = {}
  for word in list:gmatch "%S+" do pad[#pad + 1] = tonumber(word) end
  row("F.pad/" .. list, function(x) return F.pad(x, pad) end)
end
row("F.pad/value", function(x) return F.pad(x, {1, 1}, "constant", 7) end)
row("F.one_hot", function(i) return F.one_hot(i, 4) end)
row("F.one_hot/largest", function(i) return F.one_hot(i) end)
for name, opts in pairs {["nearest 2"] = {scale_factor = 2}, ["nearest size"] = {size = {3, 2}},
  ["nearest down"] = {size = {1, 2}}, ["bilinear 2"] = {scale_factor = 2, mode = "bilinear"},
  ["bilinear size"] = {size = {5, 4}, mode = "bilinear"},
  ["bilinear 1.5"] = {scale_factor = {1.5, 0.7}, mode = "bilinear"},
  ["bilinear corners"] = {size = {4, 5}, mode = "bilinear", align_corners = true},
  ["bilinear corners 1"] = {size = {1, 5}, mode = "bilinear", align_corners = true}} do
  row("F.interpolate/" .. name, function(x) return F.interpolate(x, opts) end, 8, 1e-6)
end
row("F.leaky_relu/0.5", function(x) return F.leaky_relu(x, 0.5) end, 1, 0, {elementwise = 1})
row("F.gelu/tanh", function(x) return F.gelu(x, "tanh") end, 6, 1e-6, {elementwise = 1})
for d = 1, 2 do
  row("F.softmax/" .. d, function(x) return F.softmax(x, d) end, 4, 1e-7)
  row("F.log_softmax/" .. d, function(x) return F.log_softmax(x, d) end, 4, 1e-6)
end

for text, opts in pairs {[""] = {}, ["/1"] = {p = 1}, ["/inf"] = {p = math.huge}, ["/first"] = {dim = 1}} do
  row("F.normalize" .. text, function(x) return F.normalize(x, opts) end, 4, 1e-7)
end
row("F.cosine_similarity", F.cosine_similarity, 4, 3e-7)

local weight = atomo.tensor {2, 0.5, 1.5}
local function loss(name, case, opts, ulp)
  row(("F.%s/%s"):format(name, case), function(x, t) return F[name](x, t, opts) end, ulp or 4, 3e-7)
end
loss("cross_entropy", "none", {reduction = "none"})
loss("cross_entropy", "hit", {reduction = "none"})
loss("cross_entropy", "issue")
loss("cross_entropy", "smooth", {reduction = "none", label_smoothing = 0.3})
loss("cross_entropy", "weight", {reduction = "none", weight = weight})
loss("cross_entropy", "weight smooth", {reduction = "none", weight = weight, label_smoothing = 0.3})
for _, reduction in ipairs {"mean", "sum"} do
  for _, smooth in ipairs {0, 0.1} do
    local opts = {reduction = reduction, label_smoothing = smooth}
    loss("cross_entropy", ("ignore %s %s"):format(reduction, smooth), opts)
    opts = {reduction = reduction, label_smoothing = smooth, weight = weight}
    loss("cross_entropy", ("ignore weight %s %s"):format(reduction, smooth), opts)
  end
  loss("nll_loss", reduction, {reduction = reduction, weight = weight})
end
loss("nll_loss", "none", {reduction = "none"})
loss("cross_entropy", "probabilities", {reduction = "none"})
loss("mse_loss", "none", {reduction = "none"})
row("F.mse_loss", F.mse_loss, 1)
for _, name in ipairs {"l1_loss", "smooth_l1_loss", "huber_loss"} do
  loss(name, "none", {reduction = "none"}, 1)
  loss(name, "sum", {reduction = "sum"}, 1)
  row("F." .. name, F[name], 1)
end
for _, beta in ipairs {0, 2.5} do
  loss("smooth_l1_loss", tostring(beta), {reduction = "none", beta = beta}, 1)
end
loss("huber_loss", "0.25", {reduction = "none", delta = 0.25}, 1)
loss("bce_with_logits", "none", {reduction = "none"})
row("F.bce_with_logits", function(x, t)
  return F.bce_with_logits(x, t, {weight = weight, pos_weight = weight + 1})
end, 2)

row("F.linear", F.linear, 2)
row("F.conv2d", F.conv2d, 2)
row("F.conv2d/zeros", function(x, w) return F.conv2d(x, w, nil, {padding = 1}) end)
row("F.conv_transpose2d", function(x, w) return F.conv_transpose2d(x, w, nil, {stride = 2}) end, 2)
row("F.embedding", F.embedding)
row("F.max_pool2d", function(x) return F.max_pool2d(x, 2) end)
row("F.max_pool2d/overlap", function(x) return F.max_pool2d(x, 3, {stride = 1, padding = 1}) end)
row("F.avg_pool2d", function(x) return F.avg_pool2d(x, 2) end, 1)
row("F.adaptive_avg_pool2d", function(x) return F.adaptive_avg_pool2d(x, 3) end, 1)
row("F.global_avg_pool", F.global_avg_pool, 1)
row("F.layer_norm", function(x, g, b) return F.layer_norm(x, x:size(-1), g, b) end, 8, 2e-6)
local function batch_norm(x, g, b) return F.batch_norm(x, g, b, {training = true}) end
row("F.batch_norm", batch_norm, 8, 2e-6)
row("F.batch_norm/relu", function(x, g, b)
  return F.batch_norm(x, g, b, {training = true, relu = true})
end, 8, 2e-6)
row("F.batch_norm/eval", function(x)
  local mean, variance = atomo.tensor {0, 1, 2, 0}, atomo.tensor {0, 1, 1e30, 1}
  return F.batch_norm(x, nil, nil, {running_mean = mean, running_var = variance})
end, 4)
row("F.group_norm", function(x, g, b) return F.group_norm(x, 2, g, b) end, 8, 2e-6)
row("F.scaled_dot_product_attention", F.scaled_dot_product_attention, 8, 1e-5)
row("F.scaled_dot_product_attention/mask", function(q, k, v)
  local inf = math.huge
  return F.scaled_dot_product_attention(q, k, v, {mask = atomo.tensor {{0, -inf, 0}, {-1e9, 0, -1e9}, {0, 0, -inf}}})
end, 8, 1e-5)
local function zeros(n) return atomo.zeros(n, 1) end
row("F.lstm", function(x, a, b) return (F.lstm(x, a, b, nil, nil, zeros(x:size(2)), zeros(x:size(2)))) end, 8, 1e-6)
row("F.gru", function(x, a, b) return F.gru(x, a, b, nil, nil, zeros(x:size(2))) end, 8, 1e-6)

-- ---- linear algebra ------------------------------------------------------------------------------------------------

row("atomo.svd", function(a) return (select(2, atomo.svd(a))) end, 8, 1e-6)
row("atomo.eigh", function(a) return (atomo.eigh(a)) end, 8, 1e-6)
row("atomo.qr", function(a)
  local _, r = atomo.qr(a)
  local n = math.min(r:size(1), r:size(2))
  local d = atomo.empty(n)
  for i = 1, n do d:set(i, math.abs(r:get(i, i))) end
  return d
end, 8, 1e-6)
row("atomo.rfft", atomo.rfft, 2, 1e-6)
row("atomo.irfft/even", function(x) return atomo.irfft(x) end, 2, 1e-6)
row("atomo.irfft/odd", function(x) return atomo.irfft(x, 5) end, 2, 1e-6)
row("atomo.irfft/one", function(x) return atomo.irfft(x, 1) end, 2, 1e-6)

M.nn = nn
return M
