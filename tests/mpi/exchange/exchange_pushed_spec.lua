-- Between push and finish a gradient belongs to the exchange: if it changes, or two share memory, an error names them,
-- with and without overlap, in the first and in later steps. The step can then be given up, and the next one is
-- bit-identical to that of a run without it. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local world = atomo.mpi.world

local function gradients(step)
  local list = {}
  for i = 1, 3 do
    atomo.manual_seed(100 * step + 10 * i + world.rank)
    list[i] = atomo.randn(8, 8)
  end
  return list
end

local function push_all(ex, grads)
  for i = #grads, 1, -1 do ex:push(i, grads[i]) end
end

local function good_step(ex, step)
  local grads = gradients(step)
  push_all(ex, grads)
  ex:finish()
  return grads
end

--- Mistakes of a user in a step, and what the error must name.
local ways = {
  {"changed in place", "gradient 2 was changed in place after push", function(ex, g)
    ex:push(3, g[3])
    ex:push(2, g[2])
    g[2]:mul_(100)
    ex:push(1, g[1])
  end},
  {"changed through a view", "gradient 3 was changed in place after push", function(ex, g)
    push_all(ex, g)
    g[3]:view(-1):narrow(1, 64, 1):zero_()
  end},
  {"one tensor under two numbers", "gradients 1 and 3 share memory", function(ex, g)
    push_all(ex, {g[3], g[2], g[3]})
  end},
  {"views that overlap", "gradients 2 and 3 share memory", function(ex, g)
    local both = atomo.cat({g[2], g[3]}, 1)
    push_all(ex, {g[1], both:narrow(1, 1, 8), both:narrow(1, 8, 8)})
  end},
}

describe("a gradient between push and finish", function()
  for _, compress in ipairs {"none", "entry:ratio=2", "powersgd:ef=true", "auto:ratio=4"} do
    for _, overlap in ipairs {true, false} do
      for _, way in ipairs(ways) do
        it(("%s: %s, overlap %s"):format(way[1], compress, tostring(overlap)), function()
          local function open() return atomo.exchange {compress = compress, overlap = overlap, min_size = 8} end
          for _, before in ipairs {0, 2} do -- number of correct steps before
            local ex, untouched = open(), open()
            for step = 1, before do
              good_step(ex, step)
              good_step(untouched, step)
            end
            way[3](ex, gradients(before + 1))
            local ok, why = pcall(ex.finish, ex)
            assert.is_false(ok)
            assert.truthy(tostring(why):find(way[2], 1, true), why)
            ex:drop()
            local got, expected = good_step(ex, before + 1), good_step(untouched, before + 1)
            for i, g in ipairs(expected) do assert.same(g:totable(), got[i]:totable()) end
          end
        end)
      end
    end
  end

  it("may lie beside another one in one block", function()
    local ex = atomo.exchange {}
    for _ = 1, 2 do
      local block = atomo.ones(3, 8)
      push_all(ex, {block:narrow(1, 1, 1), block:narrow(1, 2, 1), block:narrow(1, 3, 1)})
      ex:finish()
      assert.equal(24, block:sum():item())
    end
  end)
end)
