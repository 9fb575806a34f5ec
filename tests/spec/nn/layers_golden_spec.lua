-- Losses, activations, norms, attention and recurrent layers against PyTorch (tests/golden/make_layers.py), forward and
-- backward.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F

local root = require "support.root"
local golden = dofile(root .. "tests/golden/layers.lua")

local function read(g)
  local t = atomo.tensor(g.data, g.dtype)
  return t:reshape(g.shape)
end

local function leaf(g) return g.dtype and read(g) or atomo.param(read(g)) end

local function near(got, expected, what)
  local want = read(expected)
  assert.same(want:shape(), got:shape())
  local d = (got:detach() - want):abs():max():item() / math.max(1, want:abs():max():item())
  assert.is_true(d < 1e-5, ("%s is off by %g"):format(what, d))
end

local takes_case = {max_pool2d = true, avg_pool2d = true, BatchNorm2d = true} -- those that look at more than y

--- How each case is called: its options, then its inputs (or its input and the case).
local run = {
  layer_norm = function(o, x, w, b) return F.layer_norm(x, o.shape, w, b) end,
  group_norm = function(o, x, w, b) return F.group_norm(x, o.groups, w, b) end,
  batch_norm_1d = function(_, x, w, b)
    local layer = nn.BatchNorm1d(5)
    layer.weight, layer.bias = w, b
    return layer(x)
  end,
  embedding = function(o, index, w) return F.embedding(index, w, o.padding_idx) end,
  adaptive_avg_pool2d = function(o, x) return F.adaptive_avg_pool2d(x, o.size) end,
  conv_transpose2d = function(o, x, w, b) return F.conv_transpose2d(x, w, b, o) end,
  attention = function(o, q, k, v) return F.scaled_dot_product_attention(q, k, v, o) end,
  gelu = function(o, x) return F.gelu(x, o.approximate) end,
  conv2d = function(o, x, w, b) return F.conv2d(x, w, b, o) end,
  BatchNorm2d = function(o, x, c)
    local layer, y = nn.BatchNorm2d(3, o.layer), nil
    for i = 1, o.steps do y = layer(x * i) end
    y = atomo.cat({y, layer:eval()(x)}, 1)
    for i, name in ipairs {"running_mean", "running_var"} do
      if c.running then near(layer[name], c.running[i], name) else assert.is_nil(layer[name]) end
    end
    return y
  end,
}
for _, name in ipairs {"max_pool2d", "avg_pool2d"} do
  run[name] = function(o, x, c)
    local opts = {return_indices = name == "max_pool2d" or nil}
    for k, v in pairs(o) do
      if k ~= "kernel" then opts[k] = v end
    end
    local y, indices = F[name](x, o.kernel, opts)
    if c.indices then assert.same(read(c.indices):totable(), indices:totable()) else assert.is_nil(indices) end
    return y
  end
end
for _, name in ipairs {"leaky_relu", "silu", "tanh", "sigmoid"} do
  run[name] = function(_, x) return F[name](x) end
end
for _, name in ipairs {"cross_entropy", "nll_loss", "mse_loss", "bce_with_logits"} do
  run[name] = function(o, x, t)
    local opts = {}
    for k, v in pairs(o) do opts[k] = type(v) == "table" and read(v) or v end
    return F[name](x, t, opts)
  end
end

--- The layer of a case with a state, built from its options and the state's shapes.
local build = {
  MultiheadAttention = function(c)
    local o = c.opts
    return nn.MultiheadAttention(c.state["out_proj.weight"].shape[1], 2,
      {bias = o.bias, batch_first = o.batch_first, causal = o.causal, kdim = o.kdim, vdim = o.vdim})
  end,
  Conv2d = function(c)
    local opts = {}
    for k, v in pairs(c.opts) do
      if k ~= "kernel" then opts[k] = v end
    end
    return nn.Conv2d(2, 3, c.opts.kernel, opts)
  end,
}
for name, gates in pairs {LSTM = 4, GRU = 3} do
  build[name] = function(c)
    local shape = c.state.weight_ih_l0.shape
    return nn[name](shape[2], shape[1] / gates, c.opts)
  end
end

--- Forward of a layer; with initial states the last ones stand before the sequence, as the golden script puts them.
local function apply(c, layer, inputs)
  if c.opts.masks then
    local masks = {}
    for name, g in pairs(c.opts.masks) do masks[name] = read(g) end
    return (layer(inputs[1], inputs[2], inputs[3], masks))
  end
  local y, h, last = layer(unpack(inputs))
  if (c.name == "LSTM" or c.name == "GRU") and #inputs > 1 then return atomo.cat({h, last or y, last and y}, 1) end
  return y
end

describe("golden vectors of", function()
  for i, c in ipairs(golden) do
    it(("%s (case %d)"):format(c.name, i), function()
      local inputs, layer = {}, nil
      for k, g in ipairs(c.inputs) do inputs[k] = leaf(g) end
      local function forward()
        if not c.state then
          if takes_case[c.name] then return run[c.name](c.opts, inputs[1], c) end
          return run[c.name](c.opts, unpack(inputs))
        end
        layer = build[c.name](c)
        local state = {}
        for name, g in pairs(c.state) do state[name] = read(g) end
        layer:load_state_dict(state)
        return apply(c, layer, inputs)
      end
      local y = forward()
      near(y, c.y, "y")
      y:backward(read(c.gy))
      for k, g in ipairs(c.grads) do
        if g then near(inputs[k].grad, g, "gradient of input " .. k) end
      end
      for name, g in pairs(c.state_grads or {}) do near(layer:state_dict()[name].grad, g, "gradient of " .. name) end
    end)
  end
end)
