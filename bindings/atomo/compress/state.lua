--- state_dict and load_state_dict of compressors, for checkpoints. The state has two parts: the memory (f32: residuals
-- of error feedback, PowerSGD's factors) and the learnt state (bytes: prices, kept bases, auto's choices). Form: {["1"]
-- = memory of tensor 1, ["learnt.1"] = learnt state of tensor 1, ["learnt.0"] = learnt state of the step, ...}; a
-- scripted compressor also has ["lane1.learnt.1"] and so on, the states of its adapters, and ["state.1"] (bytes), what
-- the user's functions keep for tensor 1.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local arguments = require "atomo.compress.arguments"
local C, check, raise = f.C, f.check, f.raise

local M = {}

--- Loads one entry of a state, at once if its tensor is planned, else when it is (M.planned).
local function load_one(self, name, t)
  local what = ("%s: load_state_dict: '%s'"):format(self.name, brief(name))
  local learnt = tostring(name):match "^learnt%.(%d+)$"
  local state = tostring(name):match "^state%.(%d+)$"
  T.expect(t, what, (learnt or state) and "u8" or "f32")
  local i = tonumber(learnt or state or tostring(name):match "^%d+$")
  if not i then raise(what .. " is no tensor's number, expected 0, 1, 2, ... or learnt.0, learnt.1, ...") end
  local put = learnt and self.put_learnt or state and self.put_state or self.put_back
  if i == 0 or self.shapes[i] then return put(self, i, t) end
  self.pending[i] = self.pending[i] or {}
  table.insert(self.pending[i], {put = put, name = tostring(name), tensor = T.outside_scope(t.clone, t)})
end

--- Called when tensor i has been planned: restores the state that was loaded for it before.
function M.planned(self, i)
  local waiting = self.pending and self.pending[i]
  if not waiting then return end
  self.pending[i] = nil
  for _, w in ipairs(waiting) do w.put(self, i, w.tensor) end
end

--- Adds the state that was loaded for tensors which are not planned yet.
local function add_pending(self, state)
  for _, waiting in pairs(self.pending or {}) do
    for _, w in ipairs(waiting) do state[w.name] = w.tensor:clone() end
  end
  return state
end

-- ---- compressors in C --------------------------------------------------------------------------------------------

M.builtin = {}

function M.builtin:put_back(i, memory) check(C.atomo_codec_set_memory(self.h, i, memory.h)) end
function M.builtin:put_learnt(i, bytes) check(C.atomo_codec_set_learnt(self.h, i, bytes.h)) end

function M.builtin:put_state(i)
  raise(("%s: load_state_dict: 'state.%d' is of a compressor in Lua, which this one is not"):format(self.name, i))
end

--- Restores a result of state_dict. Raises if an entry does not fit.
---@param state table<string, atomo.Tensor>
---@usage c:load_state_dict(c:state_dict())
function M.builtin:load_state_dict(state)
  arguments.state_table(self.name, state)
  self.pending = {}
  for name, t in pairs(state) do load_one(self, name, t) end
end

local function add(state, name, fn, h, i)
  local out = T.out()
  check(fn(h, i, out))
  local t = T.wrap(out[0])
  if t:numel() > 0 then state[name:format(i)] = t end
end

--- Returns the state; empty for compressors whose steps do not depend on earlier ones.
---@return table<string, atomo.Tensor>
---@usage type(c:state_dict()) --> table
function M.builtin:state_dict()
  local state = {}
  add(state, "learnt.%d", C.atomo_codec_learnt, self.h, 0)
  for i in pairs(self.shapes) do
    add(state, "%d", C.atomo_codec_memory, self.h, i)
    add(state, "learnt.%d", C.atomo_codec_learnt, self.h, i)
  end
  return add_pending(self, state)
end

--- Resets the learnt state and keeps the memory: the next messages are bit-identical to those of a new compressor with
--- this memory.
function M.builtin:restart() check(C.atomo_codec_restart(self.h)) end

-- ---- compressors in Lua ------------------------------------------------------------------------------------------

M.custom = {}

function M.custom:put_back(i, memory)
  local held = self.ef and self.held[i]
  if not held or memory:numel() ~= held:numel() then
    raise(("%s: memory of tensor %d: %d numbers, expected %d: was it saved with other options?"):format(
      self.name, i, memory:numel(), held and held:numel() or 0))
  end
  local bad = memory:count_nonfinite()
  if bad > 0 then raise(("%s: memory of tensor %d: %d numbers are NaN or Inf"):format(self.name, i, bad)) end
  held:copy_(memory:view(held:shape()))
end

function M.custom:put_state(i, bytes)
  local kept = self.adapters[1].kept
  if not kept then raise(("%s: load_state_dict: 'state.%d': it keeps no state"):format(self.name, i)) end
  kept:load(i, bytes)
end

function M.custom:load_state_dict(state)
  arguments.state_table(self.name, state)
  self.pending = {}
  local adapters = {}
  for k in ipairs(self.adapters) do adapters[k] = {} end
  for name, t in pairs(state) do
    local k, rest = tostring(name):match "^lane(%d+)%.(.+)$"
    if not k then
      load_one(self, name, t)
    elseif adapters[tonumber(k)] then
      adapters[tonumber(k)][rest] = t
    else
      raise(("%s: load_state_dict: '%s': it has %d adapters"):format(self.name, name, #self.adapters))
    end
  end
  for k, adapter in ipairs(self.adapters) do adapter.codec:load_state_dict(adapters[k]) end
end

function M.custom:restart()
  for _, adapter in ipairs(self.adapters) do adapter.codec:restart() end
end

function M.custom:state_dict()
  local state = {}
  for i, held in pairs(self.ef and self.held or {}) do state[("%d"):format(i)] = held:clone() end
  local kept = self.adapters[1].kept
  for i in pairs(kept and self.shapes or {}) do state[("state.%d"):format(i)] = kept:save(i) end
  for k, adapter in ipairs(self.adapters) do
    for name, t in pairs(adapter.codec:state_dict()) do state[("lane%d.%s"):format(k, name)] = t end
  end
  return add_pending(self, state)
end

return M
