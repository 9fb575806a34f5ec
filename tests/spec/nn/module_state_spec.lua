-- Registration of whatever a field can hold, and loading: nested tables, later and removed fields, shared and tied
-- tensors, partial loads, restarted dropout.
local atomo = require "atomo"
local fails = require "support.fails"
local names = require "support.module_names"
local nn, F = atomo.nn, atomo.F

local function linear() return nn.Linear(1, 1, {bias = false}) end
local function param() return atomo.param {1} end

--- A module whose fields `fill` assigns.
local function module(fill)
  local class = nn.Module:extend "Own"
  function class:init() fill(self) end
  function class:forward(x) return x end
  return class()
end

describe("fields of a module", function()
  local cases = {
    {"lists", function(m) m.a = {linear(), linear()} end, "a.0.weight a.1.weight"},
    {"lists of lists", function(m) m.a = {{linear(), linear()}, {{linear()}}} end,
      "a.0.0.weight a.0.1.weight a.1.0.0.weight"},
    {"tables by name, sorted", function(m) m.heads = {right = linear(), left = linear(), [2] = linear()} end,
      "heads.1.weight heads.left.weight heads.right.weight"},
    {"parameters in tables", function(m) m.w = {param(), {x = param()}} end, "w.0 w.1.x"},
    {"lists with a gap, or something else first", function(m) m.a = {nil, linear(), "text", 3, linear()} end,
      "a.1.weight a.4.weight"},
    {"modules and parameters side by side", function(m) m.a = {linear(), param()} end, "a.1 a.0.weight"},
    {"a list filled later", function(m)
      m.a = {}
      m.a[1] = linear()
      table.insert(m.a, linear())
    end, "a.0.weight a.1.weight"},
    {"fields assigned later, removed, and again", function(m)
      m.a = param()
      m.b = param()
      m.b = nil
      m.c = param()
      m.b = linear()
      m.a = nil
    end, "c b.weight"},
    {"a table that holds itself", function(m)
      local t = {linear()}
      t.again = t
      m.a = t
    end, "a.0.weight"},
    {"a module that holds its parent", function(m)
      m.child = linear()
      m.child.parent = m
      m.w = param()
    end, "w child.weight"},
    {"shared modules, once", function(m)
      local shared = linear()
      m.a = shared
      m.b = {shared}
    end, "a.weight"},
    {"no plain tensors, numbers, objects of other classes", function(m)
      m.x, m.n, m.list = atomo.ones(2), 3, {atomo.ones(2), "text"}
      m.object = setmetatable({linear()}, {})
    end, ""},
    {"no results", function(m) m.y = {param() * 2} end, ""},
  }
  for _, case in ipairs(cases) do
    it("are registered: " .. case[1], function()
      local m = module(case[2])
      assert.equal(case[3], names(m:named_parameters()))
      local list = m:parameters()
      if #list > 0 then
        m:zero_grad():eval()
        local o = atomo.optim.sgd {params = list, lr = 1}
        for _, p in ipairs(list) do p.grad:fill_(1) end
        o:step()
        m:load_state_dict(m:state_dict())
      end
    end)
  end

  it("of a container with a gap are called or refused, never left out", function()
    for _, class in ipairs {"Sequential", "Concat"} do
      local m = nn[class] {linear(), linear(), linear()}
      m[2] = nil
      fails(class .. ": entry 2 is nil, but entry 3 is there", m, atomo.ones(1, 1))
      m[2] = linear()
      m(atomo.ones(1, 1))
      table.remove(m, 2)
      m(atomo.ones(1, 1))
      assert.equal(2, #m:parameters())
    end
  end)

  it("under a key that makes no name are refused", function()
    local key = {}
    fails({"field 'a'", "under a table"}, function() module(function(m) m.a = {[key] = linear()} end):parameters() end)
    fails("under a boolean", function() module(function(m) m.a = {[true] = param()} end):parameters() end)
  end)

  it("that hold buffers, which a parameter of that name replaces", function()
    local m = module(function(m)
      m:register_buffer("mean", atomo.ones(2))
      m.blocks = {{nn.BatchNorm2d(2)}}
    end)
    assert.equal("mean blocks.0.0.running_mean blocks.0.0.running_var", names(m:named_buffers()))
    m.mean = nil
    assert.equal("blocks.0.0.running_mean blocks.0.0.running_var", names(m:named_buffers()))
    m.mean = param()
    assert.equal("mean blocks.0.0.weight blocks.0.0.bias", names(m:named_parameters()))
    fails({"register_buffer: 'x' is a number"}, m.register_buffer, m, "x", 3)
  end)

  it("are named in errors", function()
    local m = module(function(m) m.blocks = {{nn.Linear(2, 3)}, left = nn.Linear(2, 3)} end)
    getmetatable(m).forward = function(self, x) return self.blocks[1][1](x) end
    fails("[in Own > blocks.0, layer 1: Linear]", m, atomo.ones(1, 5))
    getmetatable(m).forward = function(self, x) return self.blocks.left(x) end
    fails("[in Own > blocks.left: Linear]", m, atomo.ones(1, 5))
  end)
end)

describe("a module or parameter in a class", function()
  it("is refused, since no instance would train or save it", function()
    local Own = nn.Module:extend "Own"
    fails({"module_state_spec.lua:", "Own.fc: a module in a class", "set self.fc in init"}, function()
      Own.fc = nn.Linear(1, 1)
    end)
    fails({"Own.scale: a parameter in a class"}, function() Own.scale = param() end)
    Own.width, Own.layer, Own.ones = 3, nn.Linear, atomo.ones(2)
    assert.equal(3, Own().width)
  end)
end)

describe("two tensors of the same name", function()
  local ways = {
    function(m) m.list = {nn.Linear(1, 1), ["0"] = nn.Linear(1, 1)} end,
    function(m) m.list = {nn.Linear(1, 1), [1.5] = nn.Linear(1, 1)} end,
    function(m)
      m.a = {b = nn.Linear(1, 1)}
      m["a.b"] = nn.Linear(1, 1)
    end,
    function(m)
      m.fc = nn.Linear(1, 1)
      m["fc.weight"] = param()
    end,
  }
  for i, change in ipairs(ways) do
    it("are refused, since a state would keep one only: " .. i, function()
      local m = module(change)
      for _, use in ipairs {"parameters", "state_dict", "zero_grad"} do
        fails({"module_state_spec.lua:", "Own: two tensors are named '"}, function() m[use](m) end)
      end
    end)
  end

  it("are not meant where one is twice in a table", function()
    local fc = nn.Linear(1, 1)
    local m = module(function(m) m.list = {fc, ["0"] = fc} end)
    assert.equal(2, #m:parameters())
  end)
end)

describe("the module that an error names", function()
  local function misuse() return pcall(atomo.F.linear, atomo.ones(1, 3), atomo.ones(2, 2)) end

  it("is none after an error of the user's in a forward, caught", function()
    local m = module(function(m) m.fc = nn.Linear(2, 2) end)
    getmetatable(m).forward = function(self, x)
      self.fc(x)
      error "on purpose"
    end
    assert.is_false(pcall(m, atomo.ones(1, 2)))
    local _, text = misuse()
    assert.is_nil(text:find("[in", 1, true), text)
  end)

  it("is none while a coroutine that yields in a forward is suspended, and the coroutine's own in it", function()
    local m = module(function(m) m.fc = nn.Linear(2, 2) end)
    getmetatable(m).forward = function(self)
      coroutine.yield()
      return self.fc(atomo.ones(1, 3))
    end
    local co = coroutine.create(function() return m() end)
    assert(coroutine.resume(co))
    local _, text = misuse()
    assert.is_nil(text:find("[in", 1, true), text)
    local _, inside = coroutine.resume(co)
    assert.truthy(inside:find("[in Own > fc: Linear]", 1, true), inside)
  end)

  it("is that of the innermost call, through calls that a forward returns", function()
    local outer, inner = module(function(m) m.fc = nn.Linear(2, 2) end), module(function() end)
    inner.body = outer
    getmetatable(inner).forward = function(self, x) return self.body(x) end
    getmetatable(outer).forward = function(self, x) return self.fc(x) end
    fails("[in Own > body > fc: Linear]", inner, atomo.ones(1, 3))
  end)
end)

describe("a tensor in the place of a parameter", function()
  local ways = {
    function(m) m.weight = atomo.ones(2, 3) end, function(m) m.weight = m.weight * 0.5 end,
    function(m) m.weight = m.weight:detach():clone() end,
    function(m)
      m:parameters()
      m.bias = atomo.zeros(2)
    end,
  }
  for i, change in ipairs(ways) do
    it("is refused, since nothing would train or save it: " .. i, function()
      local m = nn.Linear(3, 2)
      change(m)
      local net = nn.Sequential {m}
      for _, use in ipairs {"parameters", "state_dict", "zero_grad"} do
        fails({"Linear: '", "was a parameter, and a tensor that is none was assigned to it: use atomo.param"},
          net[use], net)
      end
    end)
  end

  it("is taken where it is a parameter, a buffer, or comes after nil", function()
    local m = nn.Linear(3, 2)
    m.weight = atomo.param(atomo.ones(2, 3))
    m.bias = nil
    m.bias = atomo.ones(2)
    assert.equal("weight", names(m:named_parameters()))
    local x = m(atomo.ones(1, 3))
    assert.equal(4, x:get(1, 1))
    m:register_buffer("weight", atomo.zeros(2, 3))
    assert.equal(0, #m:parameters())
  end)

  it("that became a parameter by requires_grad_() is still saved when it is frozen", function()
    local m = module(function(self) self.w = atomo.ones(2):requires_grad_() end)
    assert.equal(1, #m:parameters())
    m:requires_grad_(false)
    assert.equal("w", names(m:named_parameters()))
  end)
end)

describe("load_state_dict", function()
  local function net() return nn.Sequential {nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)} end

  it("with strict = false loads the tensors on both sides, and names the others", function()
    local a, b = net(), net()
    local part, before = a:state_dict(), b[3].bias:totable()
    part["2.bias"], part.other = nil, atomo.ones(1)
    fails({"missing: 2.bias", "unexpected: other"}, b.load_state_dict, b, part)
    assert.same({missing = {"2.bias"}, unexpected = {"other"}}, b:load_state_dict(part, {strict = false}))
    assert.same(a[1].weight:totable(), b[1].weight:totable())
    assert.same(before, b[3].bias:totable())
    assert.same({missing = {"0.weight", "0.bias", "2.weight", "2.bias"}, unexpected = {}},
      b:load_state_dict({}, {strict = false}))
    assert.is_true(b:load_state_dict(a:state_dict()) == b)
    assert.is_true(b:load_state_dict(a:state_dict(), {strict = true}) == b)
  end)

  it("refuses wrong shapes by name either way, and changes nothing then", function()
    local a, b = net(), net()
    local values, before = a:state_dict(), b[1].weight:totable()
    values["2.weight"] = atomo.zeros(3, 2)
    for _, opts in ipairs {{strict = true}, {strict = false}} do
      fails("wrong shape: 2.weight is [3,2], expected [2,3]", b.load_state_dict, b, values, opts)
    end
    values["2.weight"] = 4
    fails("2.weight is a number", b.load_state_dict, b, values, {strict = false})
    assert.same(before, b[1].weight:totable())
    fails({"unknown option 'strickt'", "did you mean 'strict'?"}, b.load_state_dict, b, values, {strickt = false})
    fails("got a tensor", b.load_state_dict, b, atomo.ones(1))
  end)

  it("accepts one copy of tied weights, and refuses two that differ", function()
    local function tied()
      local m = module(function(m)
        m.embedding = nn.Embedding(4, 3)
        m.out = nn.Linear(3, 4, {bias = false})
      end)
      m.out.weight = m.embedding.weight
      return m
    end
    for _, left in ipairs {"embedding.weight", "out.weight"} do
      local m, values = tied(), tied():state_dict()
      local wanted = values[left]:totable()
      values[left] = nil
      m:load_state_dict(values)
      assert.same(wanted, m.out.weight:totable())
      assert.is_true(m.out.weight == m.embedding.weight)
    end
    local m, values = tied(), tied():state_dict()
    values["out.weight"] = values["out.weight"]:detach():clone()
    m:load_state_dict(values)
    values["out.weight"]:set(1, 1, 17)
    fails("one tensor here, two values: embedding.weight and out.weight", m.load_state_dict, m, values)
    fails("missing: embedding.weight, out.weight", m.load_state_dict, m, {})
  end)

  it("loads what shares memory with the module as it was: two layers swap their weights", function()
    local two = nn.Sequential {linear(), linear()}
    local values = two:state_dict()
    local first, second = values["0.weight"]:totable(), values["1.weight"]:totable()
    two:load_state_dict {["0.weight"] = values["1.weight"], ["1.weight"] = values["0.weight"]:view(1, 1)}
    assert.same(second, two[1].weight:totable())
    assert.same(first, two[2].weight:totable())
  end)

  it("names a shared module under each of its names, and accepts either", function()
    local m = module(function(m)
      m.a = nn.Linear(2, 2)
      m.b = m.a
    end)
    local values = m:state_dict()
    assert.is_true(values["b.weight"] == values["a.weight"])
    m:load_state_dict {["b.weight"] = atomo.ones(2, 2), ["a.bias"] = atomo.zeros(2)}
    assert.equal(1, m.a.weight:get(1, 1))
  end)
end)

describe("manual_seed", function()
  it("restarts dropout, with the same seed too", function()
    local x = atomo.ones(200)
    for _, seed in ipairs {
      function() atomo.manual_seed(5) end, function() math.randomseed(5) end,
    } do
      seed()
      local first = F.dropout(x, 0.5):totable()
      assert.is_false(F.dropout(x, 0.5):get(1) == first[1] and F.dropout(x, 0.5):sum():item() == 0)
      seed()
      assert.same(first, F.dropout(x, 0.5):totable())
      F.dropout_stream(1, 7)
      F.dropout(x, 0.5)
      seed()
      assert.same(first, F.dropout(x, 0.5):totable())
      seed()
      F.dropout_stream(1, 7)
      assert.is_false(pcall(assert.same, first, F.dropout(x, 0.5):totable()))
    end
  end)
end)
