--- Measures the error of Winograd convolution: for every layer of a network that can use it, the difference from the
-- direct engine in forward, data gradient and weight gradient, beside that between im2col and the direct engine.
local atomo = require "atomo"
local autograd = require "atomo.autograd"
local models = require "models"
local nn, F = atomo.nn, atomo.F

local opts = atomo.cli.parse {
  name = "bench_conv.lua",
  about = "Prints each layer's error of Winograd against direct convolution: the largest difference / the largest " ..
    "element, and the norm of the difference / the norm. im2col + sgemm against direct convolution is printed " ..
    "beside it: the difference that another order of the same sums makes.",
  examples = {
    "build/atomo-lua scripts/bench_conv.lua",
    "build/atomo-lua scripts/bench_conv.lua --model vgg11 --batch 8 --threads 2",
  },
  options = {
    {"model", "string", "resnet18", "network: resnet18, resnet20, vgg11, ..., or a file"},
    {"batch", "int", 4, "images in the batch", min = 1, unit = "images"},
    {"threads", "int", 1, "threads", min = 1, unit = "threads"},
    {"seed", "int", 0, "seed of weights, images and gradients", min = 0},
  },
}

--- Returns the distinct convolutions of a network that Winograd can compute, in order: {x shape, w shape, window,
--- count}.
local function layers_of(net, x)
  local list, known = {}, {}
  autograd.observe(function(pass, op, ctx)
    if pass ~= "forward" or op.name ~= "conv2d" then return end
    local xs, ws, win = ctx.inputs[1]:shape(), ctx.inputs[2]:shape(), ctx.inputs[4]
    local fits = ws[2] == 3 and ws[3] == 3 and win.stride[0] == 1 and win.dilation[0] == 1 and win.groups == 1
    if not fits or ws[1] % 16 + ws[4] % 16 > 0 then return end
    local key = table.concat(xs, "x") .. " " .. table.concat(ws, "x")
    if not known[key] then
      known[key] = {x = xs, w = ws, window = win, count = 0}
      list[#list + 1] = known[key]
    end
    known[key].count = known[key].count + 1
  end)
  atomo.scope(function() net(x) end)
  autograd.observe(nil)
  return list
end

--- Returns forward, data gradient and weight gradient by an engine, always for the same numbers.
local function results(engine, layer, k)
  nn.set_conv_engine(engine)
  atomo.manual_seed(opts.seed + k)
  local fan = 9 * layer.w[4]
  local x, w = atomo.param(atomo.randn(layer.x):relu_()), atomo.param(atomo.randn(layer.w):mul_(math.sqrt(2 / fan)))
  local y = F.conv2d(x, w, nil, layer.window)
  y:backward(atomo.randn(y:shape()))
  return {y:detach(), x.grad, w.grad}
end

local function difference(a, b)
  local d = a - b
  return d:norm_value(math.huge) / b:norm_value(math.huge), d:norm_value() / b:norm_value()
end

atomo.set_num_threads(opts.threads)
atomo.manual_seed(opts.seed)
print(atomo.cli.echo(opts))
local net = models.open(opts.model, {classes = 10})
local layers = layers_of(net, atomo.randn(opts.batch, 32, 32, 3))
if #layers == 0 then
  print(("%s has no convolution that Winograd could do (3x3, stride 1, channels multiples of 16)"):format(opts.model))
  return
end

local direct_engine = pcall(nn.set_conv_engine, "onednn") and "onednn" or "direct" -- "direct" may use im2col internally
local passes = {"forward", "data gradient", "weight gradient"}
local row = "%-26s %2dx  %-15s winograd: largest %.1e norm %.1e   im2col: largest %.1e norm %.1e"
local worst, worst_gemm = {0, 0}, {0, 0}
for k, layer in ipairs(layers) do
  atomo.scope(function()
    local direct, winograd = results(direct_engine, layer, k), results("winograd", layer, k)
    local gemm = results("gemm", layer, k)
    for i, pass in ipairs(passes) do
      local a, b = difference(winograd[i], direct[i])
      local c, d = difference(gemm[i], direct[i])
      worst[1], worst[2] = math.max(worst[1], a), math.max(worst[2], b)
      worst_gemm[1], worst_gemm[2] = math.max(worst_gemm[1], c), math.max(worst_gemm[2], d)
      print(row:format(("%d -> %d, %d x %d"):format(layer.x[4], layer.w[1], layer.x[2], layer.x[3]), layer.count, pass,
        a, b, c, d))
    end
  end)
end
print(("worst of %d layers: winograd %.1e of the largest element, %.1e of the norm; im2col %.1e, %.1e"):format(#layers,
  worst[1], worst[2], worst_gemm[1], worst_gemm[2]))
