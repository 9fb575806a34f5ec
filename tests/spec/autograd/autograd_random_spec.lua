-- Random programs: the tape's gradients equal those of an independent reference, or the tape raises that a tensor was
-- changed in place and the reference confirms it. ATOMO_RANDOM_PROGRAMS: number of programs (2000), ATOMO_RANDOM_SEED:
-- seed of the first (1).
-- test: slow
local atomo = require "atomo"
local programs = require "support.random_program"

describe("random autograd programs", function()
  it("give the reference's gradients, or name the tensor that was changed in place", function()
    local threads = atomo.num_threads()
    atomo.set_num_threads(1)
    local total = tonumber(os.getenv "ATOMO_RANDOM_PROGRAMS") or 2000
    local first = tonumber(os.getenv "ATOMO_RANDOM_SEED") or 1
    local counts, failures = {compared = 0, conflict = 0, constant = 0}, {}
    for seed = first, first + total - 1 do
      local ok, text = pcall(programs.run, seed, counts)
      if not ok then failures[#failures + 1] = ("program %d: %s"):format(seed, tostring(text)) end
    end
    atomo.set_num_threads(threads)
    if os.getenv "ATOMO_RANDOM_PROGRAMS" then
      print(("%d programs: %d compared, %d conflicts, %d without a gradient"):format(total, counts.compared,
        counts.conflict, counts.constant))
    end
    assert.equal("", table.concat(failures, "\n", 1, math.min(#failures, 10)), #failures .. " programs failed")
    if total >= 1000 then -- both ends are met often
      assert.is_true(counts.compared > total)
      assert.is_true(counts.conflict > total / 50)
    end
  end)
end)
