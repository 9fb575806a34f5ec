-- The functions of a scripted compressor must not depend on the rank: atomo.verify compares messages and decoded
-- gradients over the ranks, and an exchange refuses such functions before the first step.
local atomo = require "atomo"
local world = atomo.mpi.world

local turn = 0 -- set to the rank to make the functions below depend on it
atomo.basis("ranks_shifted", {
  analyze = function(g) return g * (turn % 2 == 0 and 1 or -1) end,
  synthesize = function(c) return c * (turn % 2 == 0 and 1 or -1) end,
})
atomo.decomposition("ranks_rebuilt", {
  decompose = function(g)
    local length = g:norm_value(2)
    return atomo.full({1}, length), g:contiguous():view(1, -1) * (length > 1e-30 and 1 / length or 0)
  end,
  reconstruct = function(lambda, factors, shape)
    return (factors:t() * lambda):sum(2):view(shape) * (1 + turn % 2)
  end,
})

--- Plans a compressor's tensors and compares the ranks, as an exchange does at its first step.
local function agree(text)
  local c = atomo.compressor(text)
  c:prepare({{64, 64}, {10, 3}}, {"first", "second"})
  return pcall(c.check_ranks, c, world)
end

--- Runs a step of an exchange.
local function step_of(text)
  local ok, ex = pcall(atomo.exchange, {compress = text, topology = "allgather", min_size = 30, seed = 5})
  assert.is_true(ok, ex)
  return pcall(function()
    ex:push(1, atomo.ones(24, 30))
    ex:finish()
  end)
end

describe("over the ranks", function()
  it("atomo.verify passes functions that give the same results on all ranks", function()
    turn = 0
    for _, text in ipairs {"svd:ratio=8", "ranks_shifted:ratio=8", "ranks_rebuilt:atoms=0.5"} do
      local report = atomo.verify(text, {shape = {6, 10}, draws = 100})
      assert.is_true(report.pass, tostring(report))
      local seen = tostring(report):find("same message on every rank", 1, true) ~= nil
      assert.equal(world.size > 1, seen)
    end
  end)

  it("atomo.verify finds a basis and a reconstruct that depend on the rank", function()
    turn = world.rank
    for _, text in ipairs {"ranks_shifted:ratio=8", "ranks_rebuilt:atoms=0.5"} do
      local report = atomo.verify(text, {shape = {6, 10}, draws = 100})
      if world.size > 1 then
        local failures = table.concat(report:failures(), ";")
        local row = text:find "rebuilt" and "same message on every rank" or "same gradient from it"
        assert.truthy(failures:find(row, 1, true), tostring(report)) -- rebuilt's are dense: whoever encodes rebuilds
      end
    end
  end)

  it("an exchange refuses them on every rank, by tensor", function()
    for _, text in ipairs {"ranks_shifted:ratio=8", "ranks_rebuilt:atoms=0.5"} do
      for _, go in ipairs {agree, step_of} do
        turn = 0
        local ok, message = go(text)
        assert.is_true(ok, tostring(message))
        turn = world.rank
        ok, message = go(text)
        assert.equal(world.size == 1, ok)
        if not ok then assert.matches("must depend on the shape and the options alone", tostring(message)) end
      end
    end
    turn = 0
  end)
end)
