-- .grad through an exchange, in a user's loop: a parameter that some ranks do not use averages right in every step, and
-- zero_grad clears what the exchange has written.
local atomo = require "atomo"
local F, world = atomo.F, atomo.mpi.world

--- Runs four steps. Only rank 0 uses w, with gradient `size` there, so that the average is 1. Returns w.grad of each
--- step.
local function averages(options, shape, zero)
  atomo.manual_seed(1)
  local w, v = atomo.param(atomo.zeros(shape)), atomo.param(atomo.zeros(shape))
  local optimizer = atomo.optim.sgd {params = {w, v}, lr = 0.1}
  local ex, seen = atomo.exchange(options), {}
  local x = atomo.full({1, shape[2]}, world.size)
  for step = 1, 4 do
    zero(optimizer, {w, v})
    local y = F.linear(x, v):sum()
    if world.rank == 0 then y = y + F.linear(x, w):sum() end
    y:backward()
    for i, p in ipairs {w, v} do ex:push(i, p.grad) end
    ex:finish()
    seen[step] = w.grad:get(1, 1)
    optimizer:step()
  end
  return seen, w
end

local zeroings = {
  ["optimizer:zero_grad"] = function(optimizer) optimizer:zero_grad() end,
  ["p:zero_grad"] = function(_, params) for _, p in ipairs(params) do p:zero_grad() end end,
  ["fill_"] = function(_, params) for _, p in ipairs(params) do p.grad:zero_() end end,
  ["new tensors"] = function(_, params) for _, p in ipairs(params) do p.grad = atomo.zeros(p:shape()) end end,
}

describe("a parameter that one rank uses", function()
  local topologies = {"allreduce", "allgather", "sharded", "hierarchical", world.size > 1 and "ps" or nil}
  for _, topology in ipairs(topologies) do
    for _, overlap in ipairs {true, false} do
      for name, zero in pairs(zeroings) do
        it(("averages to 1, 1, 1, 1: %s, overlap %s, %s"):format(topology, tostring(overlap), name), function()
          local seen, w = averages({topology = topology, overlap = overlap}, {2, 3}, zero)
          for step = 1, 4 do assert.is_near(1, seen[step], 1e-6) end
          assert.is_near(-0.4, w:get(1, 1), 1e-6)
        end)
      end
    end
  end

  for _, spec in ipairs {"natural", "qsgd:bits=8", "entry:ratio=2", "svd:atoms=2,bits=32"} do
    for _, topology in ipairs {"allgather", "sharded"} do
      it(("never grows under %s, %s"):format(spec, topology), function()
        local seen = averages({topology = topology, compress = spec, min_size = 1}, {40, 50},
          zeroings["optimizer:zero_grad"])
        for step = 1, 4 do assert.is_true(seen[step] < 2.5, ("step %d: %g"):format(step, seen[step])) end
      end)
    end
  end

  it("and by an all-reduce by hand", function()
    local w = atomo.param(atomo.zeros(2, 3))
    w.grad = atomo.zeros(2, 3)
    for _ = 1, 4 do
      w:zero_grad()
      if world.rank == 0 then F.linear(atomo.full({1, 3}, world.size), w):sum():backward() end
      world:allreduce(w.grad, "sum")
      assert.equal(world.size, w.grad:get(1, 1))
    end
  end)
end)
