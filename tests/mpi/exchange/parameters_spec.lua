-- A user-defined loop: before the first step of a plan, the exchange compares the parameters of the gradients that are
-- pushed. Replicas that start apart would stay apart, since every rank applies the same averages.
local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world

--- Makes a layer with other values on the last rank if `apart`.
local function layer(apart)
  atomo.manual_seed(apart and world.rank == world.size - 1 and 2 or 1)
  return nn.Linear(6, 4)
end

--- Takes a step without atomo.train.
local function step(ex, model, optimizer)
  if optimizer then optimizer:zero_grad() end
  model(atomo.ones(3, 6)):square():sum():backward()
  for i, p in ipairs(model:parameters()) do ex:push(i, p.grad) end
  ex:finish()
  if optimizer then optimizer:step() end
end

local ways = {{}, {overlap = false}, {compress = "entry:ratio=2"}, {compress = "qsgd", topology = "sharded"},
  {topology = "hierarchical"}, {compress = "svd:ratio=2", topology = "hierarchical"}}

describe("a user-defined loop whose ranks start with different parameters", function()
  if world.size == 1 then return pending "wants two ranks" end
  for _, way in ipairs(ways) do
    local name = ("%s %s%s"):format(way.topology or "default", way.compress or "none",
      way.overlap == false and " without overlap" or "")
    it("is told so on every rank, and can start again: " .. name, function()
      local model, ex = layer(true), atomo.exchange(way)
      ex:set_names {"weight", "bias"}
      local optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1}
      local ok, why = pcall(step, ex, model, optimizer)
      assert.is_false(ok)
      assert.matches("before step 0.*rank 0 has '[%a]+ = crc .*world:bcast%(t, 0%)", why)
      ex:drop()
      for _, p in ipairs(model:parameters()) do world:bcast(p, 0) end
      for _ = 1, 2 do step(ex, model, optimizer) end
      ex:check_replicas(model, "model")
    end)
  end

  it("is told so without an optimizer, and after a new plan", function()
    local ok, why = pcall(step, atomo.exchange {}, layer(true))
    assert.is_false(ok)
    assert.matches("the parameter of gradient 1 = crc", why)
    local model, ex = layer(false), atomo.exchange {}
    step(ex, model)
    if world.rank == 0 then atomo.no_grad(function() model.weight:add_(1) end) end
    ex:replan()
    ok, why = pcall(step, ex, model)
    assert.is_false(ok)
    assert.matches("before step 1", why)
  end)

  it("is not told so with checked = false, and the replicas stay apart", function()
    local model, ex = layer(true), atomo.exchange {checked = false}
    step(ex, model, atomo.optim.sgd {params = model:parameters(), lr = 0.1})
    assert.is_false(pcall(atomo.exchange({}).check_replicas, ex, model, "model"))
  end)

  it("is not reported for gradients whose parameter is unknown on a rank", function()
    local model, ex = layer(true), atomo.exchange {}
    model(atomo.ones(3, 6)):square():sum():backward()
    for i, p in ipairs(model:parameters()) do ex:push(i, world.rank == 0 and p.grad:clone() or p.grad) end
    ex:finish()
    assert.equal(1, ex.step)
  end)
end)
