--- Runs functions with failing allocations, for the out-of-memory specs.
local atomo = require "atomo"
local C = require("atomo.ffi").C

local M = {}

--- Returns the number of live native blocks when further garbage collections free none (a finalizer may make others
--- free).
local function live()
  local before, now
  repeat
    before = now
    collectgarbage()
    now = atomo.mem().live_blocks
  until now == before
  return now
end

--- Runs fn with its n-th allocation failing, for n = 1, 2, ... until fn has no n-th one; returns how often fn failed.
--- before (may be nil) is called before each run.
--- (Making a tensor in Lua is retried after a garbage collection, so these failures are not seen.)
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

--- As sweep, but raises if a block is not freed. If blocks from before are freed meanwhile (values held by a compiled
--- trace), the sweep is repeated. over_ranks(left) returns the least and largest of all ranks' numbers.
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
