--- Sweeps of failing allocations, for the specs that run out of memory on purpose.
local atomo = require "atomo"
local C = require("atomo.ffi").C

local M = {}

--- Blocks of native memory that live once nothing more is collected: finalizers run a round later, and may let go of
--- others.
local function live()
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

local function alone(left) return left, left end

--- As sweep; raises where a block is left behind. What the program still held from before (values of a compiled trace)
--- may go meanwhile: then the sweep is run again. over_ranks(left) gives the least and the most of all ranks' numbers.
function M.clean_sweep(fn, before, over_ranks)
  for _ = 1, 5 do
    local blocks = live()
    local failures = M.sweep(fn, before)
    if before then before() end
    local least, most = (over_ranks or alone)(live() - blocks)
    assert(most <= 0, ("%d blocks are left behind by %d failures"):format(most, failures))
    if least == 0 then return failures end
  end
  error "the number of blocks goes on falling"
end

return M
