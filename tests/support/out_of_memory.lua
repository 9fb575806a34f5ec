--- Sweeps of failing allocations, for the specs that run out of memory on purpose.
local atomo = require "atomo"
local C = require("atomo.ffi").C

local M = {}

--- Blocks of native memory that live once nothing more is collected: finalizers run a round later, and may let go of
--- others.
function M.live()
  local before, now
  repeat
    before = now
    collectgarbage()
    now = atomo.mem().live_blocks
  until now == before
  return now
end

--- Runs fn with its n-th allocation failing for n = 1, 2, ... until none is left to fail; returns how often fn failed.
--- before (may be nil) is called ahead of each run.
-- (A tensor made from Lua is tried again after a collection: such a failure goes unseen, as it should.)
function M.sweep(fn, before)
  local failures = 0
  for n = 1, 500 do
    if before then before() end
    C.atomo_mem_fail_alloc(n)
    local ok, message = pcall(fn)
    local reached = C.atomo_mem_fail_alloc(0) == 0
    if not ok then
      assert(reached, message)
      assert(tostring(message):find("out of memory", 1, true), message)
      failures = failures + 1
    end
    if not reached then return failures end
  end
  error "more than 500 allocations"
end

return M
