-- Detects native memory that fn does not free. Blocks that the garbage collector has not found yet vary by chance, so a
-- leak is reported only if there is at least one block per call over many calls.
local atomo = require "atomo"

local CALLS = 50

--- Returns the number of live native blocks after the garbage collector finds no more.
local function live()
  local before
  repeat
    before = atomo.mem().live_blocks
    collectgarbage()
    collectgarbage()
  until atomo.mem().live_blocks == before
  return before
end

--- Returns the number of blocks that a call of fn does not free, 0 if there is less than one per call.
return function(fn)
  fn()
  local before = live()
  for _ = 1, CALLS do fn() end
  return math.max(0, math.floor((live() - before) / CALLS))
end
