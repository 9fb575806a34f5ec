-- Do all ranks stand in the same operation? Disagreements are errors on every rank, naming both sides.
local atomo = require "atomo"
local world = atomo.mpi.world
local n, me = world.size, world.rank

--- fn must fail on this rank with a text that has all the others.
local function disagree(fn, ...)
  local ok, message = pcall(fn)
  assert(not ok, "no error")
  for i = 1, select("#", ...) do
    assert(tostring(message):find(select(i, ...), 1, true), tostring(message))
  end
end

local function spec(name, fn)
  it(name, function()
    if n == 1 then pending "one rank always agrees with itself" else fn() end
  end)
end

describe("check", function()
  it("passes equal numbers and texts", function()
    world:check("learning rate", 0.1)
    world:check("model", "resnet20")
    world:check("nothing", "")
    assert.equal(n, #world:allgatherv "and all ranks are where they were")
  end)

  spec("names both sides of a difference", function()
    local last = n - 1
    disagree(function() world:check("learning rate", me == last and 0.2 or 0.1) end,
      "check: learning rate differs: rank 0 has '0.10000000000000001'", ("rank %d has '0.2"):format(last))
    disagree(function() world:check("model", me == 1 and "vgg11" or "resnet20") end,
      "rank 0 has 'resnet20', rank 1 has 'vgg11'")
    world:check("still", "usable")
  end)

  spec("sees other questions", function()
    disagree(function() world:check(me == 0 and "model" or "seed", 1) end, "'model'", "'seed'")
  end)
end)

describe("fingerprints", function()
  spec("tell another element type", function()
    disagree(function() world:allgatherv(atomo.zeros({3}, me == 1 and "i32" or "f32")) end,
      "allgatherv: the ranks disagree", "rank 0 is in allgatherv", "f32", "rank 1", "i32")
  end)

  spec("tell another operation", function()
    disagree(function()
      if me == 0 then return world:allgatherv("abc") end
      local list = {}
      for r = 1, n do list[r] = atomo.zeros(1) end
      world:alltoallv(list)
    end, "rank 0 is in allgatherv", "rank 1 is in alltoallv")
  end)

  spec("tell another purpose", function()
    disagree(function()
      world:tag(me == 0 and "step 3, conv1" or "step 4, conv1")
      world:allgatherv "x"
    end, "'step 3, conv1'", "'step 4, conv1'")
    world:tag ""
    assert.equal(n, #world:allgatherv "fine again")
  end)
end)
