-- Gradients without elements, alone and among others, can be exchanged by every topology: they are not passed to a
-- compressor, and every bucket completes. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local world = atomo.mpi.world

--- Exchanges three steps of gradients with these shapes; returns the last step's averages.
local function exchanged(options, shapes)
  local ex, grads = atomo.exchange(options), nil
  for _ = 1, 3 do
    grads = {}
    for i, shape in ipairs(shapes) do
      grads[i] = atomo.full(shape, world.rank + 1)
      ex:push(i, grads[i])
    end
    ex:finish()
  end
  return grads
end

local mean = (world.size + 1) / 2
local ways = {}
for _, topology in ipairs {"allreduce", "allgather", "ps", "sharded", "hierarchical"} do
  for _, compress in ipairs {"none", "entry:ratio=1"} do
    local fits = topology ~= "allreduce" or compress == "none"
    if fits and (topology ~= "ps" or world.size > 1) then ways[#ways + 1] = {topology, compress} end
  end
end

describe("a gradient without entries", function()
  for _, way in ipairs(ways) do
    for _, min_size in ipairs {0, 16} do
      for _, small in ipairs {"dense", "compress"} do
        local name = ("by %s, %s, min_size %d, small %s"):format(way[1], way[2], min_size, small)
        local function options() return {topology = way[1], compress = way[2], min_size = min_size, small = small} end
        if way[2] ~= "none" or small == "dense" then
          it("alone " .. name, function()
            local grads = exchanged(options(), {{0}, {0, 4}})
            assert.same({0}, grads[1]:shape())
            assert.same({0, 4}, grads[2]:shape())
          end)

          it("among others " .. name, function()
            local grads = exchanged(options(), {{0, 4}, {8, 8}, {0}, {3}})
            assert.is_near(mean, grads[2]:mean():item(), 0.2 * mean)
            assert.is_near(mean, grads[4]:mean():item(), 0.2 * mean)
          end)
        end
      end
    end
  end
end)

it("a second table of options is refused", function()
  local ok, message = pcall(atomo.exchange, {compress = "none"}, {topology = "ps"})
  assert.is_false(ok)
  assert.matches("exchange: got a second argument, expected one table", message)
end)
