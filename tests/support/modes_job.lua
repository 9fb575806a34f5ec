-- Job that modes_spec.lua runs in each of LuaJIT's modes: the tape, built-in and user-defined operators, compressors,
-- an exchange of one rank, on small tensors. Prints a line for every part with a hash of all its results.
local atomo = require "atomo"
local bit = require "bit"
local nn, F = atomo.nn, atomo.F

--- Returns the FNV-1a hash of the bytes of tensors and strings.
local function hash(...)
  local h = 0x811C9DC5
  for i = 1, select("#", ...) do
    local v = select(i, ...)
    local text = type(v) == "string" and v or v:bytes()
    for k = 1, #text do
      h = bit.bxor(h, text:byte(k))
      h = bit.tobit(h + bit.lshift(h, 1) + bit.lshift(h, 4) + bit.lshift(h, 7) + bit.lshift(h, 8) + bit.lshift(h, 24))
    end
  end
  return bit.tohex(h)
end

local parts = {}

function parts.tape()
  local a, b = atomo.param(atomo.randn(6, 5)), atomo.param(atomo.randn(5))
  for _ = 1, 40 do
    atomo.scope(function()
      local y = (a * b + a:exp()):square()
      local z = y:sum(2, true) / 3 - (a:transpose(1, 2):matmul(y)):mean()
      local loss = (z:abs() + F.silu(b):sum()):mean()
      loss:backward()
    end)
  end
  return hash(a.grad, b.grad)
end

function parts.own_operators()
  local cube = atomo.func {
    name = "cube",
    forward = function(ctx, x)
      ctx:save(x)
      local y = atomo.empty_like(x)
      local from, to = x:data(), y:data()
      for i = 0, x:numel() - 1 do to[i] = from[i] * from[i] * from[i] end
      return y
    end,
    backward = function(ctx, gy) return ctx:saved():square() * gy * 3 end,
  }
  local gate = atomo.elementwise("gate", function(p, q) return p:tanh() * q:sigmoid() end)
  local x = atomo.param(atomo.randn(100))
  for _ = 1, 40 do atomo.scope(function() gate(cube(x), x):sum():backward() end) end
  return hash(x.grad)
end

function parts.codecs()
  local g, made = atomo.randn(24, 3, 3, 8), {}
  for _, spec in ipairs {"none", "entry:ratio=8", "svd:ratio=4,bits=8", "haar:ratio=8", "qsgd:bits=4", "terngrad",
    "topk:ratio=8", "powersgd:rank=2"} do
    local c = atomo.compressor(spec)
    for step = 1, 3 do
      local msg = c:encode(g, {step = step, tensor = 1})
      made[#made + 1] = msg:bytes()
      made[#made + 1] = c:decode(msg)
    end
  end
  return hash(unpack(made))
end

function parts.training()
  local net = nn.Sequential {nn.Conv2d(3, 8, 3, {padding = 1}), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(8 * 4 * 4, 10)}
  local optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1, momentum = 0.9}
  local exchange = atomo.exchange {compress = "svd:ratio=4,bits=8", seed = 3}
  local batches = {steps = 8}
  function batches.epoch()
    local step = 0
    return function()
      step = step + 1
      if step > batches.steps then return nil end
      local labels = atomo.zeros(6, "i32")
      for i = 1, 6 do labels:set(i, (i * step) % 10) end
      return {x = atomo.randn(6, 8, 8, 3), y = labels, n = 6, total = 6}
    end
  end
  atomo.train {model = net, data = batches, optimizer = optimizer, exchange = exchange, epochs = 2, quiet = true}
  local values = {}
  for i, p in ipairs(net:parameters()) do values[i] = p:detach() end
  return hash(unpack(values))
end

for _, name in ipairs {"tape", "own_operators", "codecs", "training"} do
  atomo.manual_seed(7)
  print(name, parts[name]())
end
