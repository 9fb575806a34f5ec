-- What atomo.decomposition's functions get and keep: info, a state per tensor that follows the steps, bits for each
-- factor, exact integers.
local atomo = require "atomo"
local fails = require("support.codec").fails
local root = require "support.root"

dofile(root .. "scripts/atoms/past_directions.lua")

--- Rows of a matrix as atoms; each(info) is called by decompose.
local function declare(name, each, more)
  local t = {
    decompose = function(g, _, info)
      if each then each(info, g) end
      local matrix, size = g:view(g:size(1), -1), math.max(g:norm_value(math.huge), 1e-37)
      matrix = matrix / size
      local lambda = (matrix * matrix):sum(2):sqrt():view(-1)
      local n = lambda:numel()
      return lambda * size, {atomo.arange(n):int():view(n, 1), matrix / lambda:view(n, 1):clamp(1e-30, math.huge)}
    end,
    reconstruct = function(lambda, factors, shape)
      local g = atomo.zeros(shape)
      for k = 1, lambda:numel() do
        g:select(1, factors[1]:get(k, 1) + 1):axpy_(lambda:get(k), factors[2]:select(1, k):view(unpack(shape, 2)))
      end
      return g
    end,
  }
  for key, value in pairs(more or {}) do t[key] = value end
  atomo.decomposition(name, t)
end

local shapes = {{6, 5}, {4, 3}}
local function gradients(seed)
  atomo.manual_seed(seed)
  return {atomo.randn(shapes[1]), atomo.randn(shapes[2])}
end

local function one_step(c, step, grads, finish)
  local out, at = atomo.zeros(c:wire_max(), "u8"), 0
  c:begin_step(step, 2)
  for i, g in ipairs(grads) do at = at + c:push(i, g, out, at) end
  c[finish or "end_step"](c)
  return out:narrow(1, 1, at):bytes()
end

describe("info", function()
  it("has the tensor's number and name, the step, the rank and a state", function()
    local seen = {}
    declare("seen", function(info) seen[#seen + 1] = info end)
    local c = atomo.compressor "seen:ratio=2"
    c:prepare(shapes, {"conv.weight", "fc.weight"})
    seen = {}
    one_step(c, 7, gradients(1))
    assert.equal(2, #seen)
    for i, name in ipairs {"conv.weight", "fc.weight"} do
      local info = seen[i]
      assert.same({i, name, 7, 2}, {info.tensor, info.name, info.step, info.rank})
    end
    assert.same({}, seen[1].state)
  end)
end)

describe("a state", function()
  local sums, counts
  setup(function()
    declare("sums", function(info, g)
      local s = info.state
      s.sum = s.sum and s.sum:add_(g) or g
      s.count = (s.count or 0) + 1
      s.nested = {[1] = {text = "a\0b", flag = true, tiny = 4e-324 * s.count}, id = atomo.arange(2):int()}
      sums[info.tensor], counts[info.tensor] = s.sum:clone():keep(), s.count
    end)
  end)
  before_each(function() sums, counts = {}, {} end)

  it("is of each tensor, and keeps copies of the tensors that are put in it", function()
    local c, a, b = atomo.compressor "sums:ratio=2", gradients(1), gradients(2)
    c:prepare(shapes)
    one_step(c, 1, a)
    local want = {a[1] + b[1], a[2] + b[2]}
    for _, g in ipairs(a) do g:zero_() end
    one_step(c, 2, b)
    for i = 1, 2 do assert.equal(0, (sums[i] - want[i]):norm_value(math.huge)) end
    assert.same({2, 2}, counts)
  end)

  it("is as before a step that is given up, or an encode that fails", function()
    local c, a, b = atomo.compressor "sums:ratio=2", gradients(1), gradients(2)
    c:prepare(shapes)
    one_step(c, 1, a)
    local before = c:state_dict()["state.1"]:bytes()
    one_step(c, 2, b, "undo_step")
    assert.equal(before, c:state_dict()["state.1"]:bytes())
    one_step(c, 2, b)
    assert.same({2, 2}, counts)
    declare("failing", function(info)
      info.state.count = (info.state.count or 0) + 1
      counts[1] = info.state.count
      if counts.fail then error("no", 0) end
    end)
    c = atomo.compressor "failing:ratio=2"
    c:encode(a[1], {step = 1})
    counts.fail = true
    fails("no", c.encode, c, a[1], {step = 2})
    counts.fail = false
    c:encode(a[1], {step = 2})
    assert.equal(2, counts[1])
  end)

  it("of a saved compressor is restored bit for bit, before or after the plan", function()
    local c = atomo.compressor "sums:ratio=2"
    c:prepare(shapes)
    one_step(c, 1, gradients(1))
    one_step(c, 2, gradients(2))
    local saved = c:state_dict()
    local want = one_step(c, 3, gradients(3))
    for _, early in ipairs {true, false} do
      local d = atomo.compressor "sums:ratio=2"
      if early then d:load_state_dict(saved) end
      d:prepare(shapes)
      if not early then d:load_state_dict(saved) end
      assert.equal(saved["state.2"]:bytes(), d:state_dict()["state.2"]:bytes())
      assert.equal(want, one_step(d, 3, gradients(3)))
      assert.same({3, 3}, counts)
    end
  end)

  it("that is damaged, of another compressor, or of other values is refused by name", function()
    local c, g = atomo.compressor "sums:ratio=2", gradients(1)[1]
    c:encode(g)
    local bytes = c:state_dict()["state.1"]
    for _, n in ipairs {1, 5, bytes:numel() - 1} do
      fails("sums: load_state_dict: the state of tensor 1 is no saved state", c.load_state_dict, c,
        {["state.1"] = bytes:narrow(1, 1, n)})
    end
    local other = atomo.compressor "svd:ratio=2"
    other:encode(g)
    fails("'state.1' is of a compressor in Lua", other.load_state_dict, other, {["state.1"] = bytes})
    for _, item in ipairs {{"f is a function", print}, {"f has a key that is a boolean", {[true] = 1}},
      {"deeper than 16", "itself"}} do
      declare("refused", function(info)
        if info.step == 0 then return end
        local v = item[2]
        if v == "itself" then v = {} v.f = v end
        info.state.f = v
      end)
      c = atomo.compressor "refused:ratio=2"
      fails(item[1], c.encode, c, g, {step = 1})
    end
  end)

  it("costs no memory from step to step once warm", function()
    local c = atomo.compressor "past_directions:ratio=2"
    c:prepare(shapes)
    local out, grads, before = atomo.zeros(c:wire_max(), "u8"), gradients(1), nil
    local function memory() -- without what earlier tests have left to the collector
      collectgarbage()
      collectgarbage()
      return atomo.mem()
    end
    for step = 1, 40 do
      if step == 25 then before = memory() end
      c:begin_step(step, 0)
      local at = 0
      for i, g in ipairs(grads) do at = at + c:push(i, g, out, at) end
      c:end_step()
    end
    local after = memory()
    assert.equal(before.live, after.live)
    assert.equal(before.system_allocs, after.system_allocs)
  end)
end)

describe("factors", function()
  it("of type i32 arrive exactly, negative ones too, and cost the bits of their largest", function()
    local got
    atomo.decomposition("places", {
      decompose = function(g)
        local places = atomo.tensor({{0, 0}, {-1, 2 ^ 24}, {-2 ^ 24, 5}}, "i32")
        return g:view(-1):narrow(1, 1, 3), {places, atomo.ones(3, 1)}
      end,
      reconstruct = function(_, factors, shape)
        got = factors[1]:totable()
        assert.equal("i32", factors[1]:dtype())
        return atomo.ones(shape)
      end,
    })
    local c, g = atomo.compressor "places:atoms=3,bits=2", atomo.ones(100, 1)
    local m = c:encode(g, {step = 1})
    c:decode(m)
    assert.same({{0, 0}, {-1, 2 ^ 24}, {-2 ^ 24, 5}}, got)
    assert.is_true(m.nbytes < 3 * (4 + (2 * 26 + 5 + 2) / 8) + 16, m.nbytes)
    declare("far", nil, {decompose = function() return atomo.ones(1), {atomo.full({1, 1}, 2 ^ 24 + 2):int()} end})
    c = atomo.compressor "far:ratio=1"
    fails("factor 1 has entry 16777218, expected an integer from -2^24 to 2^24", c.encode, c, g)
  end)

  it("have bits of their own: fewer bytes, more variance, and option bits= overrides them", function()
    declare("rows_of", nil, {bits = {32, 4}})
    declare("rows_all", nil, {bits = 4})
    local g = atomo.randn(16, 64)
    local function nbytes(text)
      local c = atomo.compressor(text)
      local m = c:encode(g, {step = 1})
      assert.is_true((c:decode(m) - g):norm_value(2) <= 0.2 * g:norm_value(2))
      return m.nbytes
    end
    local own, all = nbytes "rows_of:atoms=16", nbytes "rows_all:atoms=16"
    assert.equal(own, all) -- the other factor is i32
    assert.is_true(own < 0.2 * nbytes "rows_of:atoms=16,bits=32")
    fails("bits[2] is 5, expected 32, 16", declare, "b", nil, {bits = {32, 5}})
    fails("bits is 5", declare, "b", nil, {bits = 5})
    declare("three", nil, {bits = {8, 8, 8}})
    local c = atomo.compressor "three:ratio=2"
    fails("bits has 3 entries, decompose gives 2 factors", c.encode, c, g)
  end)
end)

describe("verify passes", function()
  for _, text in ipairs {"past_directions:ratio=4", "integer_rows:ratio=2",
    "integer_rows:ratio=3,bits=4"} do
    it(text, function()
      declare("integer_rows")
      local report = atomo.verify(text, {shape = {12, 15}, draws = 100})
      assert.is_true(report.pass, tostring(report))
    end)
  end
end)
