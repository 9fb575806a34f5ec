--- 2x2 maximum pooling has kernels of its own (runtime/nn/pool_tiling.c): against the definition, in plain Lua.
local atomo = require "atomo"
local F = atomo.F

--- Offsets of a window's four pixels, in the order of reading, and of its output.
local function each_window(n, h, w, c, visit)
  local oh, ow = math.floor(h / 2), math.floor(w / 2)
  for i = 0, n - 1 do
    for oy = 0, oh - 1 do
      for ox = 0, ow - 1 do
        for k = 0, c - 1 do
          local at = ((i * h + 2 * oy) * w + 2 * ox) * c + k
          visit({at, at + c, at + w * c, at + w * c + c}, ((i * oh + oy) * ow + ox) * c + k)
        end
      end
    end
  end
end

--- The first of the largest; a NaN is larger than any number.
local function winner(x, pixels)
  local best = pixels[1]
  for i = 2, 4 do
    local v, top = x[pixels[i]], x[best]
    if v > top or (v ~= v and top == top) then best = pixels[i] end
  end
  return best
end

describe("max_pool2d over 2x2 windows", function()
  local function agrees(x)
    local n, h, w, c = unpack(x:shape())
    local p = atomo.param(x)
    local y = F.max_pool2d(p, 2)
    local gy = atomo.randn(unpack(y:shape()))
    y:backward(gy)
    local wanted = atomo.zeros(n, h, w, c)
    local xd, yd, gd, wd, got = x:data(), y:data(), gy:data(), wanted:data(), p.grad:data()
    each_window(n, h, w, c, function(pixels, o)
      local best = winner(xd, pixels)
      local v = xd[best]
      assert(yd[o] == v or (v ~= v and yd[o] ~= yd[o]), "output " .. o)
      wd[best] = gd[o]
    end)
    for i = 0, x:numel() - 1 do
      if got[i] ~= wd[i] then error(("gradient %d is %g, expected %g"):format(i, got[i], wd[i])) end
    end
  end

  it("selects the largest, for full and partial vectors of channels, and odd sides", function()
    atomo.manual_seed(3)
    for _, c in ipairs {1, 3, 15, 16, 17, 20, 32, 50} do
      agrees(atomo.randn(2, 4, 6, c))
      agrees(atomo.randn(1, 5, 3, c))
    end
  end)

  it("takes the first of equals, and a NaN before any number", function()
    for _, c in ipairs {3, 20} do
      local x = atomo.zeros(2, 4, 4, c)
      local d = x:data()
      for i = 0, x:numel() - 1 do d[i] = math.random(0, 2) end -- many ties
      for i = 0, x:numel() - 1, 7 do d[i] = 0 / 0 end
      agrees(x)
    end
  end)
end)
