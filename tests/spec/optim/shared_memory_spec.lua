-- A tensor and its view in one list: optimizers and averages of weights would change the same values twice. Views that
-- have no element in common may be listed.
local atomo = require "atomo"
local optim = atomo.optim

local takes = {ema = function(list) return optim.ema{params = list} end}
for _, name in ipairs {"sgd", "adam", "adamw", "lars", "lamb"} do
  takes[name] = function(list) return optim[name]{params = list, lr = 0.1} end
  takes[name .. ", in two groups"] = function(list)
    return optim[name]{params = {{params = {list[1]}}, {params = {list[2]}}}, lr = 0.1}
  end
end

local function views(w)
  local d = w:detach()
  return {d:t(), d:narrow(1, 2, 1), d:narrow(2, 2, 2), d:select(2, 3), d:reshape(-1), d:select(1, 3), d}
end

describe("parameters that share memory", function()
  for name, make in pairs(takes) do
    it("are refused by " .. name, function()
      local w = atomo.param(atomo.ones(3, 4))
      for i, v in ipairs(views(w)) do
        for _, list in ipairs {{w, atomo.param(v)}, {atomo.param(v), w}} do
          local ok, message = pcall(make, list)
          assert.is_false(ok, "view " .. i)
          local who = name:match "^%a+"
          assert.truthy(tostring(message):find(who .. ": parameters 1 and 2 share memory", 1, true), tostring(message))
        end
      end
      assert.equal(12, w:sum():item())
    end)

    it("or not, though their extents overlap, are taken by " .. name, function()
      local d = atomo.ones(3, 4)
      make {atomo.param(d:select(2, 1)), atomo.param(d:select(2, 2))}
      make {atomo.param(d:narrow(2, 1, 2)), atomo.param(d:narrow(2, 3, 2))}
      make {atomo.param(d:narrow(1, 1, 1)), atomo.param(d:narrow(1, 2, 2))}
      make {atomo.param(atomo.zeros(0)), atomo.param(atomo.zeros(0))}
    end)
  end

  it("are named among many", function()
    local list = {}
    for i = 1, 30 do list[i] = atomo.param(atomo.ones(i, 2)) end
    list[31] = atomo.param(list[17]:detach():narrow(1, 9, 1))
    local ok, message = pcall(optim.ema, {params = list})
    assert.is_false(ok)
    assert.truthy(tostring(message):find("ema: parameters 17 and 31 share memory", 1, true), tostring(message))
  end)
end)
