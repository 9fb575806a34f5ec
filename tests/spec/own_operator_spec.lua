-- The operator of one's own that docs/guide.md shows, read from there: its gradcheck, its values, and that its loops
-- are compiled.
local atomo = require "atomo"
local C = require("atomo.ffi").C

local here = debug.getinfo(1, "S").source:match "^@(.*)tests/spec/[^/]*$" or ""

local function from_guide()
  local file = assert(io.open(here .. "docs/guide.md"))
  local guide = file:read "*a"
  file:close()
  local code = guide:match "(local hard_swish = .-)```"
  return assert(loadstring('local atomo = require "atomo"\n' .. code .. "\nreturn hard_swish", "guide.md"))()
end

local function built_in(x) return x * (x + 3):clamp(0, 6) / 6 end

describe("the guide's own operator", function()
  local hard_swish = from_guide() -- its assert is the gradcheck

  it("equals the same out of built-in operations, gradient included", function()
    atomo.manual_seed(1)
    local a = atomo.param(atomo.randn(1000):mul_(3))
    local b = atomo.param(a:detach():clone())
    local y, z = hard_swish(a), built_in(b)
    assert.is_true((y - z):detach():abs():max():item() < 1e-6)
    y:square():sum():backward()
    z:square():sum():backward()
    assert.is_true((a.grad - b.grad):abs():max():item() < 1e-4)
  end)

  it("runs compiled: within 4 times of built-in operations, best of 20", function()
    local x, best = atomo.randn(65536), {math.huge, math.huge}
    for _ = 1, 20 do
      for i, fn in ipairs {hard_swish, built_in} do
        local start = C.atomo_time()
        atomo.scope(fn, x)
        best[i] = math.min(best[i], C.atomo_time() - start)
      end
    end
    assert.is_true(best[1] < 4 * best[2], ("%.2f ms, built-in %.2f ms"):format(1e3 * best[1], 1e3 * best[2]))
  end)
end)
