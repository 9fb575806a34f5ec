-- Structure of an exchange: all fields exist when it is made, the state of a step is in one object that is dropped with
-- the step, and the plan of the first step is kept. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local world = atomo.mpi.world

local function keys(v)
  local list = {}
  for key in pairs(v) do list[#list + 1] = key end
  table.sort(list)
  return list
end

local function gradients(step)
  local list = {}
  for i, shape in ipairs {{24, 30}, {7}, {5, 3, 3, 4}} do
    atomo.manual_seed(100 * step + 10 * i + world.rank)
    list[i] = atomo.randn(shape)
  end
  return list
end

local function push_all(ex, step)
  for i, g in ipairs(gradients(step)) do ex:push(i, g) end
end

local ways = {{}, {compress = "entry:ratio=8"}, {compress = "powersgd:ef=true", topology = "allreduce"},
  {compress = "entry:ratio=8", topology = "sharded"}, {compress = "entry:ratio=8", topology = "hierarchical"},
  {compress = "adaptive"}}

describe("an exchange", function()
  it("has the same fields when it is made, in a step and after it, and takes no others", function()
    for _, o in ipairs(ways) do
      o.min_size = 30
      local ex = atomo.exchange(o)
      if ex.notify then ex.notify = function() end end
      local made, in_step = keys(ex), nil
      for step = 1, 3 do
        push_all(ex, step)
        assert.same(made, keys(ex))
        if step > 1 then assert.same(in_step, keys(ex.current)) end
        in_step = keys(ex.current)
        if step == 2 then ex:drop() else ex:finish() end
        assert.same(made, keys(ex))
      end
      local ok, why = pcall(function() ex.budget = 1 end)
      assert.is_false(ok)
      assert.matches("exchange: field 'budget' is not made by the constructor", why)
    end
  end)

  it("has a step from the first push to its end, and a plan that stays until it is asked for another", function()
    for _, o in ipairs {ways[2], ways[4]} do
      local ex = atomo.exchange(o)
      assert.is_false(ex.current)
      push_all(ex, 1)
      assert.equal(0, ex.current.number)
      ex:average()
      assert.is_true(ex.current.averaged)
      ex:commit()
      assert.is_false(ex.current)
      local plan = ex.plan
      ex:push(3, gradients(2)[3])
      local given_up = ex.current
      ex:drop()
      assert.is_false(ex.current)
      push_all(ex, 3)
      assert.not_equal(given_up, ex.current)
      assert.equal(1, ex.current.number)
      ex:finish()
      assert.equal(plan, ex.plan)
      assert.is_false(pcall(function() ex.plan.late = true end))
      ex:replan()
      push_all(ex, 4)
      ex:finish()
      assert.not_equal(plan, ex.plan)
    end
  end)

  it("averages a step once", function()
    local ex = atomo.exchange {}
    push_all(ex, 1)
    ex:average()
    local ok, why = pcall(ex.average, ex)
    assert.is_false(ok)
    assert.matches("step 0 has been averaged: commit%(%) or drop%(%) ends it", why)
    ex:commit()
  end)
end)
