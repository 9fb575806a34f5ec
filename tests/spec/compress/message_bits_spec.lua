-- Messages keep their bits. Every built-in compressor and atom set encodes fixed gradients with fixed seeds.
-- Messages and decoded gradients have the checksums of tests/golden/message_bits.lua. A change that is meant to
-- change bits renews that file: build/atomo-lua tests/golden/make_message_bits.lua
--
-- C without BLAS and FFTW is bit-identical on every CPU, with and without AVX-512 (runtime/core/core.h). Atoms that
-- call BLAS, LAPACK or FFTW have those of the library and the CPU: they are compared where both are as in the file.
local atomo, messages = require "atomo", require "support.message_bits"
local golden = require "golden.message_bits"

local function compare(list, want)
  for _, item in ipairs(list) do
    local name, what = messages.case(item)
    it(name, function() assert.equal(want[name], messages.of(what)) end)
  end
end

describe("messages keep their bits:", function()
  require("support.one_thread")(lazy_setup, lazy_teardown)

  compare(messages.portable, golden.portable)

  if messages.machine() == golden.machine then
    compare(messages.local_ones, golden.local_ones)
  else
    it("of BLAS and FFTW", function()
      pending(("written with %s, here is %s"):format(golden.machine, messages.machine()))
    end)
  end

  it("there is a case of every compressor", function()
    local covered = {}
    for _, list in ipairs {messages.portable, messages.local_ones} do
      for _, item in ipairs(list) do
        local _, what = messages.case(item)
        covered[type(what) == "table" and what.name or what:match "^[^:]+"] = true
      end
    end
    for _, c in ipairs(atomo.compressors()) do
      local found = c.make ~= nil or covered[c.name] == true -- those with `make` are of other specs, in Lua
      assert.is_true(found, c.name .. " has no case in tests/support/message_bits.lua")
    end
  end)
end)
