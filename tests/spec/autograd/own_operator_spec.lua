-- The user-defined operator in docs/guide.md, read from there: its gradcheck, its values, and that its loops are
-- compiled.
local atomo = require "atomo"
local fails = require "support.fails"
local jit = require "jit"
local jutil = require "jit.util"

local function from_guide()
  local file = assert(io.open(require "support.root" .. "docs/guide.md"))
  local guide = file:read "*a"
  file:close()
  local code = 'local atomo = require "atomo"\n' .. guide:match "(local hard_swish = .-)```" .. "\nreturn hard_swish"
  local for_lines, line = {}, 0
  for text in code:gmatch "[^\n]*\n" do
    line = line + 1
    if text:match "^%s*for " then for_lines[#for_lines + 1] = line end
  end
  assert(#for_lines == 2) -- one forward, one backward
  return assert(loadstring(code, "=guide.md"))(), for_lines
end

local function built_in(x) return x * (x + 3):clamp(0, 6) / 6 end

describe("the guide's own operator", function()
  local hard_swish, for_lines = from_guide() -- runs the guide's assert, which is the gradcheck

  it("equals the same out of built-in operations, gradient included", function()
    atomo.manual_seed(1)
    local a = atomo.param(atomo.randn(1000):mul_(3))
    local b = atomo.param(a:detach():clone())
    local y, z = hard_swish(a), built_in(b)
    assert.is_true((y - z):detach():abs():max():item() < 1e-6)
    y:square():sum():backward()
    z:square():sum():backward()
    assert.is_true((a.grad - b.grad):abs():max():item() < 1e-4)
  end)

  it("has its loops compiled: each is the root of a trace that loops, and none is given up", function()
    local threads = atomo.num_threads()
    atomo.set_num_threads(1)
    local x, gy = atomo.param(atomo.randn(4096)), atomo.randn(4096)
    jit.flush() -- the specs before may have filled the trace cache
    local loops, given_up, root = {}, {}, nil
    local function see(what, trace, fn, pc, parent)
      if what == "start" then
        local at = jutil.funcinfo(fn, pc)
        root = not parent and at.source == "=guide.md" and at.currentline or nil
      elseif what == "stop" and root then
        loops[root] = jutil.traceinfo(trace).linktype
      elseif what == "abort" and root then
        given_up[root] = true
      end
    end
    jit.attach(see, "trace")
    for _ = 1, 50 do
      atomo.scope(function() hard_swish(x):backward(gy) end)
    end
    jit.attach(see)
    atomo.set_num_threads(threads)
    for _, line in ipairs(for_lines) do
      assert.equal("loop", loops[line], "the loop in line " .. line)
      assert.is_nil(given_up[line])
    end
  end)
end)

describe("ctx:save", function()
  it("refuses what is no tensor by name; it does not read its memory", function()
    local values = {{"a table", {atomo.ones(1)}}, {"a string", "text"}, {"a number", 3}, {"a boolean", true}}
    for _, case in ipairs(values) do
      local own = atomo.func {name = "own", backward = function(_, g) return g end, forward = function(ctx, x)
        ctx:save(x, case[2])
        return x * 2
      end}
      fails(("own: ctx:save: value 2 is %s, expected a tensor or nil"):format(case[1]), own, atomo.param {1})
    end
  end)
end)

describe("a table with tensors as a user-defined operator's argument", function()
  local op = atomo.func {name = "of_list", forward = function(_, list) return list[1] * (list.more and 2 or 1) end,
    backward = function() end}

  it("is refused while recording if one requires a gradient, which would be lost", function()
    local w = atomo.param {1, 2}
    for _, list in ipairs {{w}, {w * 2}, {w:narrow(1, 1, 1)}, {atomo.ones(1), more = {{w}}}} do
      fails({"own_operator_spec.lua:", "of_list: argument 1 is a table with a tensor that requires a gradient"},
        function() op(list):sum() end)
      assert.is_nil(atomo.no_grad(op, list).node)
    end
    local list = {w:detach(), more = {3}}
    list.more.again = list
    assert.same({2, 4}, op(list):totable())
  end)
end)

describe("a table of tensors as a user-defined operator's result", function()
  it("is refused while recording, since its tensors would lose their gradient", function()
    local op = atomo.func {name = "pair", forward = function(_, x) return {x * 2, x * 3} end,
      backward = function(_, g) return g end}
    fails({"own_operator_spec.lua:", "pair: forward returned a table of tensors, which get no gradient"}, function()
      op(atomo.param {1})
    end)
    assert.equal(2, op(atomo.tensor {1})[1]:item())
    local other = atomo.func {name = "with_facts", forward = function(_, x) return x * 2, {count = 3} end,
      backward = function(_, g) return g * 2 end}
    local w = atomo.param {1}
    local y, facts = other(w)
    y:sum():backward()
    assert.same({2, 3}, {w.grad:item(), facts.count})
  end)
end)

describe("results of a user-defined operator that share memory", function()
  local function twice(part)
    return atomo.func {name = "twice", forward = function(_, x)
      local y = x * 2
      return y, part(y)
    end, backward = function(ctx, a, b)
      local g = atomo.zeros(ctx.inputs[1]:shape())
      if a then g:add_(a) end
      if b then part(g):add_(b) end
      return g * 2
    end}
  end
  for name, part in pairs {
    ["one tensor twice"] = function(y) return y end,
    ["a tensor and a view of it"] = function(y) return y:narrow(1, 1, 1) end,
  } do
    it("have their gradients, and a change of one is not lost on the other: " .. name, function()
      local w = atomo.param {1, 2}
      local a, b = twice(part)(w)
      ;(a:sum() + b:sum() * 3):backward()
      assert.equal(8, w.grad:get(1))
      a, b = twice(part)(w)
      fails("mul_: this view was made by a user-defined operator", b.mul_, b, 10)
      a:mul_(10)
      fails("a user-defined operator's result that shares memory with its argument or another result",
        function() return a:sum() + b:sum() end)
      w.grad = nil
      a:sum():backward()
      assert.same({20, 20}, w.grad:totable())
    end)
  end
end)
