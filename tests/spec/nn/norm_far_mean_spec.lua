-- Normalisation of values far from 0, whose mean is not a float: {1e8 + 8, 1e8} becomes {1, -1}. Forward and gradients
-- of every layer that normalises are compared with a reference in double.
-- test: slow
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F

local eps = 1e-5

--- Returns y and the gradients of x, weight and bias, in double. groups: lists of positions in flat x, 1-based, that
--- are normalised together; channel(position): the index in weight and bias.
local function reference(x, gy, groups, weight, bias, channel, relu)
  local y, gx, gw, gb = {}, {}, {}, {}
  for c = 1, #weight do gw[c], gb[c] = 0, 0 end
  for _, group in ipairs(groups) do
    local n, mean, var, a, b = #group, 0, 0, 0, 0
    for _, i in ipairs(group) do mean = mean + x[i] / n end
    for _, i in ipairs(group) do var = var + (x[i] - mean) ^ 2 / n end
    local invstd = 1 / math.sqrt(var + eps)
    local h = {}
    for k, i in ipairs(group) do
      local c, xhat = channel(i), (x[i] - mean) * invstd
      y[i] = weight[c] * xhat + bias[c]
      local g = gy[i]
      if relu and y[i] <= 0 then y[i], g = 0, 0 end
      gw[c], gb[c] = gw[c] + g * xhat, gb[c] + g
      h[k] = g * weight[c]
      a, b = a + h[k] / n, b + h[k] * xhat / n
    end
    for k, i in ipairs(group) do gx[i] = invstd * (h[k] - a - (x[i] - mean) * invstd * b) end
  end
  return y, gx, gw, gb
end

local function near(got, want, what)
  local scale = 0
  for i = 1, #want do scale = math.max(scale, math.abs(want[i])) end
  for i = 1, #want do
    local off = math.abs(got[i] - want[i])
    assert.is_true(off <= 2e-4 * scale + 1e-7, ("%s %d is %.7g, expected %.7g"):format(what, i, got[i], want[i]))
  end
end

local function flat(t) return t:detach():reshape(-1):totable() end

--- Compares layer(x) and its gradients with the reference. groups, channel: as above.
local function check(x, layer, weight, bias, groups, channel, relu)
  atomo.manual_seed(3)
  x = atomo.param(x)
  local gy = atomo.randn(unpack(x:shape()))
  local y = layer(x)
  y:backward(gy)
  local wy, wgx, wgw, wgb = reference(flat(x), flat(gy), groups, flat(weight), flat(bias), channel, relu)
  near(flat(y), wy, "y")
  near(flat(x.grad), wgx, "gradient of x")
  near(flat(weight.grad), wgw, "gradient of weight")
  near(flat(bias.grad), wgb, "gradient of bias")
end

--- Returns the positions of a [rows, c] tensor by column.
local function columns(rows, c)
  local list = {}
  for k = 1, c do
    list[k] = {}
    for r = 1, rows do list[k][r] = (r - 1) * c + k end
  end
  return list
end

--- Returns the positions of n images of p pixels and c channels by image and group of channels.
local function image_groups(n, p, c, groups)
  local list, per = {}, c / groups
  for i = 0, n - 1 do
    for g = 0, groups - 1 do
      local group = {}
      for r = 0, p - 1 do
        for k = 1, per do group[#group + 1] = (i * p + r) * c + g * per + k end
      end
      list[#list + 1] = group
    end
  end
  return list
end

--- Returns a tensor of random values base + k unit, k = 0 .. wide - 1.
local function far(base, unit, wide, ...)
  atomo.manual_seed(7)
  local t = atomo.rand(...)
  local v, shape = flat(t), t:shape()
  for i = 1, #v do v[i] = base + unit * math.floor(v[i] * wide) end
  return atomo.tensor(v):view(shape)
end

local function some(c)
  atomo.manual_seed(11)
  return atomo.param(atomo.rand(c):add_(0.5)), atomo.param(atomo.randn(c))
end

local cases = {{1e8, 8, 2}, {1e8, 8, 50}, {-1e8, 8, 3}, {1e6, 0.0625, 40}, {3e4, 2 ^ -9, 30}, {0, 0.25, 9}}

describe("a mean that is not a float", function()
  it("in BatchNorm1d: {1e8 + 8, 1e8} becomes {1, -1}", function()
    local bn = nn.BatchNorm1d(1)
    local y = bn(atomo.tensor {{1e8 + 8}, {1e8}}):totable()
    assert.is_true(math.abs(y[1][1] - 1) < 1e-4 and math.abs(y[2][1] + 1) < 1e-4, y[1][1] .. " " .. y[2][1])
    assert.is_true(math.abs(bn.running_var:item() - 4.1) < 1e-6)
  end)

  for _, case in ipairs(cases) do
    local base, unit, wide = unpack(case)
    local name = (" of %g + k %g, k < %d"):format(base, unit, wide)
    for _, relu in ipairs {false, true} do
      it("BatchNorm, relu " .. tostring(relu) .. name, function()
        for _, shape in ipairs {{7, 1}, {65, 3}, {40, 300}, {9000, 2}} do
          local x, c = far(base, unit, wide, unpack(shape)), shape[2]
          local w, b = some(c)
          check(x, function(t) return F.batch_norm(t, w, b, {training = true, relu = relu, eps = eps}) end, w, b,
            columns(shape[1], c), function(i) return (i - 1) % c + 1 end, relu)
        end
      end)
    end

    it("BatchNorm with a residual and relu" .. name, function()
      local x, c = far(base, unit, wide, 33, 4), 4
      local w, b = some(c)
      check(x, function(t)
        return F.batch_norm(t, w, b, {training = true, relu = true, eps = eps, residual = atomo.zeros(33, 4)})
      end, w, b, columns(33, c), function(i) return (i - 1) % c + 1 end, true)
    end)

    it("LayerNorm" .. name, function()
      for _, d in ipairs {2, 17, 400} do
        local w, b = some(d)
        check(far(base, unit, wide, 5, d), function(t) return F.layer_norm(t, d, w, b, eps) end, w, b,
          image_groups(5, 1, d, 1), function(i) return (i - 1) % d + 1 end)
      end
    end)

    it("GroupNorm" .. name, function()
      for _, groups in ipairs {1, 3, 6} do
        local w, b = some(6)
        check(far(base, unit, wide, 3, 5, 4, 6), function(t) return F.group_norm(t, groups, w, b, eps) end, w, b,
          image_groups(3, 20, 6, groups), function(i) return (i - 1) % 6 + 1 end)
      end
    end)
  end

  it("from a long sum: a large constant image becomes 0", function()
    local y = F.group_norm(atomo.full({1, 512, 512, 2}, 0.1), 1)
    assert.is_true(y:abs():max():item() < 1e-4, y:abs():max():item())
    y = F.layer_norm(atomo.full({1, 2 ^ 20}, 0.1), 2 ^ 20)
    assert.is_true(y:abs():max():item() < 1e-4, y:abs():max():item())
    y = F.batch_norm(atomo.full({2 ^ 20, 1}, 0.1), nil, nil, {training = true})
    assert.is_true(y:abs():max():item() < 1e-4, y:abs():max():item())
  end)

  it("does not change the bits of other channels", function()
    atomo.manual_seed(5)
    local x = atomo.randn(50, 3)
    local apart = F.batch_norm(x, nil, nil, {training = true})
    local both = atomo.cat({x, far(1e8, 8, 4, 50, 2)}, 2)
    assert.same(apart:totable(), F.batch_norm(both, nil, nil, {training = true}):narrow(2, 1, 3):totable())
  end)
end)
