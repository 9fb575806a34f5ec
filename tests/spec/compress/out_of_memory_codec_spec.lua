-- Running out of memory in a compressor: planning, encoding and decoding with the 1st, 2nd, 3rd ... allocation failing.
-- Each failure is a Lua error that says so, and no block is left behind.
local atomo = require "atomo"
local C = require("atomo.ffi").C
local memory = require "support.out_of_memory"

describe("out of memory in", function()
  teardown(function() C.atomo_mem_fail_alloc(0) end)

  for _, entry in ipairs(atomo.compressors()) do
    for _, more in ipairs(entry.make and {} or {"", ":ef=true"}) do -- those with make were declared by other specs
      it(entry.name .. more, function()
        local g = atomo.randn(8, 3, 3, 4)
        local function use()
          local c = atomo.compressor(entry.name .. more)
          c:prepare {{8, 3, 3, 4}, {5}}
          for step = 1, 2 do c:decode(c:encode(g, {step = step})):free() end
        end
        use()
        assert.is_true(memory.clean_sweep(use) > 0)
      end)
    end
  end
end)
