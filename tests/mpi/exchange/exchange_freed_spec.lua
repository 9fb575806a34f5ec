-- An exchange that is no longer referenced frees all its native memory, with every topology and compressor.
local atomo = require "atomo"
local left_behind = require "support.live_blocks"
local world = atomo.mpi.world

describe("an exchange", function()
  for _, o in ipairs {{compress = "none"}, {topology = "allgather"}, {topology = "ps"},
    {topology = "ps", downlink = "compress"}, {topology = "sharded"}, {compress = "powersgd"}} do
    o.compress, o.min_size = o.compress or "entry:ratio=4", 0
    local name = ("%s %s %s"):format(o.compress, o.topology or "", o.downlink or "")
    it("leaves nothing behind: " .. name, function()
      if world.size == 1 and o.topology == "ps" then return pending "no server on one rank" end
      assert.equal(0, left_behind(function()
        local ex = atomo.exchange(o)
        for _ = 1, 2 do
          ex:push(2, atomo.ones(16, 24))
          ex:push(1, atomo.ones(7, 9))
          ex:finish()
        end
        assert.equal(o.compress == "none" and 0 or ex.compressor:stats().variance, ex:stats().variance)
      end))
    end)
  end
end)
