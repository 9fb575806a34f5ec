--- An exchange that begins anew with its options: the next step fixes another plan, for other gradients (parameters
-- were frozen, or train again). What its compressors remember of a tensor (error feedback, PowerSGD's factors) is kept
-- by the tensor's name; the step's number, the epoch and the random streams continue.
local memories = require "atomo.exchange.memories"
local T = require "atomo.tensor"

local M = {}

--- Makes self what `fresh`, an exchange opened with the same options, is. [collective]
function M.begin(self, fresh)
  local carried, step, epoch = {}, self.step, self.epoch
  for name, memory in pairs(memories.of(self)) do
    if not memories.is_learnt(name) then carried[name] = T.outside_scope(memory.clone, memory) end
  end
  for _, comm in pairs(self.comms) do
    if comm ~= self.comm then comm:close() end
  end
  for key in pairs(self) do self[key] = nil end
  for key, value in pairs(fresh) do self[key] = value end
  memories.load(self, carried)
  self:set_step(step)
  if epoch then self:set_epoch(epoch) end
end

return M
