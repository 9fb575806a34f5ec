--- Example of a user-defined basis: Haar wavelets of the flattened tensor. Use: atomo-lua ... --load
-- scripts/atoms/haar.lua --compress haar_lua:ratio=32. Orthonormal for every length: if a level's length is odd, its
-- last entry is passed unchanged to the next level.
local atomo = require "atomo"
local r = math.sqrt(0.5)

local function down(s, c, n) -- sums of pairs are the input of the next level, differences are coefficients
  while n > 1 do
    local half, odd = math.floor(n / 2), n % 2
    for i = 0, half - 1 do
      local a, b = s[2 * i], s[2 * i + 1]
      s[i], c[half + odd + i] = (a + b) * r, (a - b) * r
    end
    if odd == 1 then s[half] = s[n - 1] end
    n = half + odd
  end
  c[0] = s[0]
end

local function up(s, c, n)
  if n == 1 then s[0] = c[0] return end
  local half, odd = math.floor(n / 2), n % 2
  up(s, c, half + odd)
  if odd == 1 then s[n - 1] = s[half] end
  for i = half - 1, 0, -1 do
    local a, b = s[i], c[half + odd + i]
    s[2 * i], s[2 * i + 1] = (a + b) * r, (a - b) * r
  end
end

atomo.basis("haar_lua", {
  summary = "Haar wavelets of the flattened tensor, in Lua",
  analyze = function(g)
    local c = atomo.empty(g:numel())
    down(g:clone():data(), c:data(), g:numel())
    return c
  end,
  synthesize = function(c, shape)
    local g = atomo.empty(shape)
    up(g:data(), c:data(), c:numel())
    return g
  end,
})
