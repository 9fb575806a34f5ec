--- An exchange that begins anew with its options: the next step fixes another plan, for other gradients (parameters
-- were frozen, or train again). What its compressor remembers of a tensor (error feedback, PowerSGD's factors) is kept
-- by the tensor's name; the step's number, the epoch and the random streams continue.
local T = require "atomo.tensor"

local M = {}

--- Message m of an exchange by its tensor's name, and of a piece by its rows.
local function key_of(self, m)
  local label = self.labels[m.index]
  return m.from and ("%s, rows %d + %d"):format(label, m.from, m.rows) or label
end

local function memories(self)
  local kept = {}
  for number, memory in pairs(self.compressor:state_dict()) do
    local m = self.messages and self.messages[tonumber(number)]
    if m then kept[key_of(self, m)] = T.outside_scope(memory.clone, memory) end
  end
  return kept
end

--- Puts back what is remembered of the messages that there still are; after the plan is made.
function M.carry_on(self)
  local state = {}
  for k, m in ipairs(self.messages or {}) do
    local memory = self.carried[key_of(self, m)]
    state[("%d"):format(k)] = memory and memory:numel() > 0 and memory or nil
  end
  self.compressor:load_state_dict(state)
  self.carried = nil
end

--- Makes self what `fresh`, an exchange opened with the same options, is. [collective]
function M.begin(self, fresh)
  local carried, step, epoch = memories(self), self.step, self.epoch
  for _, comm in pairs(self.comms) do
    if comm ~= self.comm then comm:close() end
  end
  for key in pairs(self) do self[key] = nil end
  for key, value in pairs(fresh) do self[key] = value end
  self.carried = carried
  self:set_step(step)
  if epoch then self:set_epoch(epoch) end
end

return M
