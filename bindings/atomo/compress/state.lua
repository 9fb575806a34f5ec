--- What a rank's next messages depend on beside gradients and keys: residuals of error feedback, PowerSGD's factors.
-- state_dict and load_state_dict of a compressor, for checkpoints: tables {["1"] = tensor of tensor number 1, ...}.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C, check, raise = f.C, f.check, f.raise

local M = {}

--- Each tensor's memory by its number; put_back(i, memory) places one.
local function load(self, state, put_back)
  self.pending = {}
  for name, memory in pairs(state) do
    local what = ("%s: load_state_dict: '%s'"):format(self.name, tostring(name))
    T.expect(memory, what, "f32")
    local i = tonumber(name)
    if not i then raise(what .. " is no tensor's number") end
    if self.shapes[i] then put_back(self, i, memory) else self.pending[i] = T.outside_scope(memory.clone, memory) end
  end
end

--- Tensor i has been planned: it gets what was loaded for it before.
function M.planned(self, i)
  local memory = self.pending and self.pending[i]
  if not memory then return end
  self.pending[i] = nil
  self:put_back(i, memory)
end

-- ---- compressors in C --------------------------------------------------------------------------------------------

M.builtin = {load_state_dict = function(self, state) load(self, state, self.put_back) end}

function M.builtin:put_back(i, memory) check(C.atomo_codec_set_memory(self.h, i, memory.h)) end

--- Empty for compressors that remember nothing.
---@return table<string, atomo.Tensor>
function M.builtin:state_dict()
  local state = {}
  for i in pairs(self.shapes) do
    local out = T.out()
    check(C.atomo_codec_memory(self.h, i, out))
    local memory = T.wrap(out[0])
    if memory:numel() > 0 then state[("%d"):format(i)] = memory end
  end
  return state
end

--- Forgets what the streaming form learnt; what follows has the bits of a compressor made anew with this state_dict.
function M.builtin:restart() check(C.atomo_codec_restart(self.h)) end

-- ---- compressors in Lua ------------------------------------------------------------------------------------------

M.custom = {load_state_dict = function(self, state) load(self, state, self.put_back) end}

function M.custom:put_back(i, memory)
  local held = self.held[i]
  if not self.ef or memory:numel() ~= held:numel() then
    raise(("%s: memory of tensor %d: %d numbers came, %d are expected: was it saved with other options?"):format(
      self.name, i, memory:numel(), self.ef and held:numel() or 0))
  end
  held:copy_(memory:view(held:shape()))
end

function M.custom:restart()
  for _, lane in ipairs(self.lanes) do lane.codec:restart() end
end

function M.custom:state_dict()
  local state = {}
  for i, held in pairs(self.ef and self.held or {}) do state[("%d"):format(i)] = held:clone() end
  return state
end

return M
