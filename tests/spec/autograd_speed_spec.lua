-- The tape's hot path compiles: traces through autograd.lua end well, and nothing is compiled anew once warm.
local atomo = require "atomo"
local jit = require "jit"
local jutil = require "jit.util"

describe("autograd under the JIT", function()
  it("compiles, and settles", function()
    atomo.set_num_threads(1)
    local x = atomo.param(atomo.randn(2, 4))
    local function chain()
      local y = x
      for _ = 1, 50 do y = atomo.F.relu(y) end
      y:sum():backward()
    end
    local compiled, settling, late, at = 0, true, 0, ""
    local function see(what, _, fn)
      if what == "start" then at = jutil.funcinfo(fn).source or "" end
      if what == "stop" then
        if at:find("autograd.lua", 1, true) then compiled = compiled + 1 end
        if not settling then late = late + 1 end
      end
    end
    jit.attach(see, "trace")
    for _ = 1, 150 do atomo.scope(chain) end
    settling = false
    for _ = 1, 150 do atomo.scope(chain) end
    jit.attach(see)
    assert.is_true(compiled > 0, "no trace starts in autograd.lua")
    assert.is_true(late <= 10, ("%d traces made when warm"):format(late))
  end)

  it("costs a few microseconds an operator", function()
    local C = require("atomo.ffi").C
    local x = atomo.param(atomo.randn(2, 4))
    local function chain()
      local y = x
      for _ = 1, 50 do y = atomo.F.relu(y) end
      y:sum():backward()
    end
    local best = math.huge
    for _ = 1, 60 do
      local t = C.atomo_time()
      for _ = 1, 5 do atomo.scope(chain) end
      best = math.min(best, (C.atomo_time() - t) / 250)
    end
    -- 2 us a pass is usual; the bound leaves room for a slow or busy machine
    assert.is_true(best < 2 * 10e-6, ("%.1f us for an operator's forward and backward"):format(1e6 * best))
  end)
end)
