-- Does fn leave native memory behind? What garbage the collector has not found yet is chance, so a loss must be one a
-- call: more than what many calls leave by themselves.
local atomo = require "atomo"

local CALLS = 50

--- Native blocks alive when the collector finds no more.
local function live()
  local before
  repeat
    before = atomo.mem().live_blocks
    collectgarbage()
    collectgarbage()
  until atomo.mem().live_blocks == before
  return before
end

--- Blocks that a call of fn leaves behind, 0 where there are fewer than one a call.
return function(fn)
  fn()
  local before = live()
  for _ = 1, CALLS do fn() end
  return math.max(0, math.floor((live() - before) / CALLS))
end
