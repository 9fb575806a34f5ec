-- Tensors saved for backward have versions. Every tensor that a user can access (inputs, results, aliases, a layer's
-- parameters and buffers, fields of ctx) is changed between forward and backward; backward then returns the gradients
-- for the unchanged values, or raises what was changed.
local atomo = require "atomo"
local autograd = require "atomo.autograd"
local gradients = require "support.gradients"

local function message(fn, ...)
  local ok, text = pcall(fn, ...)
  assert.is_false(ok, "no error")
  return text
end

--- Runs fn on the case's inputs, then change(results, inputs), then backward. Returns the bytes of the gradients, or
--- nil and the error; and the operators that ran.
local function run(fn, make, change)
  atomo.manual_seed(3)
  local inputs = make()
  for _, t in ipairs(inputs) do
    if t:dtype() == "f32" then atomo.param(t).grad = nil end
  end
  local weights, used = {}, {}
  autograd.observe(function(_, op) used[op.index or 0] = true end)
  local results = {fn(unpack(inputs))}
  autograd.observe(nil)
  for i, y in ipairs(results) do
    if not y.requires_grad then results[i] = nil else weights[i] = atomo.ones(y:shape()) end
  end
  atomo.no_grad(change, results, inputs)
  local ok, text = pcall(function()
    for i, y in pairs(results) do y:backward(weights[i], {retain_graph = true}) end
  end)
  if not ok then return nil, text, used end
  local bytes = {}
  for i, t in ipairs(inputs) do bytes[i] = t.grad and t.grad:contiguous():bytes() or "none" end
  return table.concat(bytes, "|"), nil, used
end

--- Changes elements so that every gradient that depends on them changes, without causing NaN.
local function spoil(t)
  if t:dtype() == "f32" then t:copy_(t * -3 + 0.37) end
end

local covered = {}

local function check(name, fn, make, change)
  local expected, _, used = run(fn, make, function() end)
  local got, text = run(fn, make, change)
  for index in pairs(used) do covered[index] = true end
  if got == nil then
    assert.matches("changed in place since", text, name)
  else
    assert.is_true(expected == got, name .. ": another gradient, without an error")
  end
end

describe("between forward and backward", function()
  local threads
  lazy_setup(function()
    threads = atomo.num_threads()
    atomo.set_num_threads(1)
  end)
  lazy_teardown(function()
    autograd.observe(nil)
    atomo.set_num_threads(threads)
  end)

  gradients.each(function(name, fn, make)
    it("a change of any input or result of " .. name .. " is seen", function()
      local inputs = (make())
      for i = 1, #inputs do
        check(name .. ", input " .. i, fn, function() return (make()) end, function(_, given) spoil(given[i]) end)
        check(name .. ", an alias of input " .. i, fn, function() return (make()) end,
          function(_, given) spoil(given[i]:detach()) end)
      end
      for i = 1, 2 do
        check(name .. ", result " .. i, fn, function() return (make()) end, function(results)
          if results[i] then spoil(results[i]) end
        end)
        check(name .. ", a view of result " .. i, fn, function() return (make()) end, function(results)
          if results[i] then spoil(results[i]:detach():view(-1)) end
        end)
      end
    end)
  end)

  --- Every elementwise function alone: in a case with several, the error of one would hide the others.
  local alone = {}
  for _, op in ipairs {"exp", "log", "sqrt", "square", "reciprocal", "sin", "cos", "abs", "sign", "floor", "relu",
    "tanh", "sigmoid", "neg", "clone", "sum", "mean", "max", "min", "norm", "contiguous", "flatten", "t"} do
    alone[op] = function(a) return (a[op](a)) end
  end
  for _, op in ipairs {"add", "sub", "mul", "div", "pow", "maximum", "minimum"} do
    alone[op] = function(a, b) return a[op](a, b) end
    alone[op .. " of a number"] = function(a) return a[op](a, 1.5) end
    alone[op .. " to a number"] = op ~= "maximum" and op ~= "minimum" and function(a)
      return atomo.Tensor[op](1.5, a)
    end or nil
  end
  alone.dot = function(a, b) return a:view(-1):dot(b:view(-1)) end
  alone.matmul = function(a, b) return a:matmul(b:t()) end
  alone.clamp = function(a) return a:clamp(0.6, 1.2) end
  alone.cat = function(a, b) return atomo.cat({a, b}, 1) end
  alone.index_select = function(a) return a:index_select(1, {2, 1}) end
  alone.elementwise = atomo.elementwise("gate", function(a, b) return a:tanh() * b:sigmoid() end)
  for _, name in ipairs {"relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "softmax", "log_softmax"} do
    alone["F." .. name] = function(a) return atomo.F[name](a) end
  end
  for name, fn in pairs(alone) do
    it("a change of an input or the result of " .. name .. " alone is seen", function()
      local function make() return {atomo.rand(2, 3):add_(0.5), atomo.rand(2, 3):add_(0.5)} end
      for i = 1, 2 do check(name, fn, make, function(_, given) spoil(given[i]) end) end
      check(name, fn, make, function(results) spoil(results[1]) end)
    end)
  end

  it("covers every operator", function()
    local without = {}
    for i, name in ipairs(atomo.operators()) do
      if not covered[i] then without[#without + 1] = name end
    end
    assert.equal("", table.concat(without, ", "))
  end)

  it("tensors that backward does not read may change", function()
    local w = atomo.param {1, 2, 3}
    for _, fn in ipairs {function(x) return x + 2 end, function(x) return x * 2 end, function(x) return x / 2 end,
      function(x) return x:exp() end, function(x) return x:sqrt() end, function(x) return x:relu() end,
      function(x) return x * atomo.tensor {1, 2, 3} end, function(x) return x - atomo.ones(3) end} do
      local x = w * 1
      local y = fn(x)
      x:zero_()
      y:sum():backward() -- no error
    end
  end)

  it("a layer's buffers, and tensors that an evaluation reads, may not change", function()
    local bn = atomo.nn.BatchNorm2d(2)
    bn:eval()
    local x = atomo.param(atomo.randn(1, 2, 2, 2))
    local y = bn(x * 1)
    bn.running_mean:add_(1)
    assert.matches("batch_norm: .*changed in place since", message(function() y:sum():backward() end))
    y = bn(x * 1)
    bn:train()(x:detach()) -- updates the running statistics
    assert.matches("batch_norm: .*changed in place since", message(function() y:sum():backward() end))
  end)

  it("nn.Checkpoint repeats its forward, whatever was set since", function()
    local nn, F = atomo.nn, atomo.F
    local function gradient(wrap, between)
      atomo.manual_seed(11)
      local body = nn.Sequential {nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)}
      local net, x = wrap and nn.Checkpoint(body) or body, atomo.param(atomo.randn(5, 3))
      F.dropout_stream(0, 3)
      local y = net(x)
      between(net, body)
      y:sum():backward()
      return x.grad:bytes(), body
    end
    for name, change in pairs {
      ["the mode"] = function(net) net:eval() end,
      ["the seed"] = function() atomo.manual_seed(99) end,
      ["the stream"] = function() F.dropout_stream(1, 9) end,
      ["a buffer"] = function(_, body) atomo.no_grad(function() body:buffers()[1]:add_(5) end) end,
    } do
      local expected = gradient(false, function() end)
      local got, body = gradient(true, change)
      assert.is_true(expected == got, name)
      if name == "the mode" then assert.is_false(body.training) end
    end
    assert.matches("checkpoint: .*changed in place since", message(gradient, true, function(_, body)
      atomo.no_grad(function() body:parameters()[1]:add_(1) end)
    end))
  end)
end)

describe("a user-defined operator", function()
  local function backward_of(keep, use)
    local op = atomo.func {name = "own", forward = function(ctx, x)
      local t = x * 2
      keep(ctx, t)
      ctx.late = t
      return x + t
    end, backward = function(ctx, g) return g * use(ctx) end}
    local w, kept = atomo.param {1, 2}, nil
    local original = keep
    keep = function(ctx, t)
      kept = t
      original(ctx, t)
    end
    local y = op(w)
    kept:fill_(9)
    return message(function() y:sum():backward() end)
  end

  it("reads a changed tensor by none of the ways to keep one", function()
    assert.matches("own: a tensor that it saved", backward_of(function(ctx, t) ctx:save(t) end,
      function(ctx) return (ctx:saved()) end))
    assert.matches("own: ctx%.a: %[2%]", backward_of(function(ctx, t) ctx.a = t end, function(ctx) return ctx.a end))
    assert.matches("own: ctx%.a:", backward_of(function(ctx, t)
      ctx.a = false
      ctx.a = t
    end, function(ctx) return ctx.a end))
    assert.matches("own: ctx%.list:", backward_of(function(ctx, t)
      ctx.list = {}
      ctx.list.deep = {n = 1, t}
    end, function(ctx) return ctx.list.deep[1] end))
    local square = atomo.func {name = "square", forward = function(_, x) return x * x end,
      backward = function(ctx, g) return g * ctx.args[1] * 2 end}
    local x = atomo.param {1, 2} * 1
    local y = square(x)
    x:zero_()
    assert.matches("square: an argument %[2%].*changed in place since", message(function() y:sum():backward() end))
  end)

  it("keeps its result by ctx:save without a cycle, and sees a change of it", function()
    local root = atomo.func {name = "root", forward = function(ctx, x)
      local y = x:sqrt()
      ctx:save(y)
      return y
    end, backward = function(ctx, g) return g / (ctx:saved() * 2) end}
    local w = atomo.param {4, 16}
    root(w):sum():backward()
    assert.same({0.25, 0.125}, w.grad:totable())
    local y = root(w)
    y:add_(1)
    assert.matches("root: a tensor that it saved", message(function() y:sum():backward() end))
  end)

  it("may change its own tensors in backward", function()
    local counting = atomo.func {name = "counting", forward = function(ctx, x)
      ctx.calls = atomo.zeros(1)
      return x * 1
    end, backward = function(ctx, g)
      ctx.calls = ctx.calls + 1
      return g * ctx.calls:item()
    end}
    local w = atomo.param {1}
    local y = counting(w)
    y:backward(nil, {retain_graph = true})
    y:backward()
    assert.equal(3, w.grad:item())
  end)
end)
