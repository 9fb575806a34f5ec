--- The exchange that works behind one that chooses (init.lua): opened for a setting, replaced, put aside during a
-- trial, closed. And how the ranks agree on figures.
local T = require "atomo.tensor"
local choose = require "atomo.exchange.auto.choose"

local M = {}

--- A list of numbers, the largest (or least) over the ranks each; the same doubles on all. [collective]
function M.agree(self, list, op)
  local t = T.outside_scope(T.zeros, #list)
  local p, result = t:data(), {}
  for i, v in ipairs(list) do p[i - 1] = v end
  self.work.comm:allreduce(t, op or "max")
  for i = 1, #list do result[i] = p[i - 1] end
  t:free()
  return result
end

function M.median(list)
  local sorted = {unpack(list)}
  table.sort(sorted)
  return sorted[math.ceil(#sorted / 2)]
end

--- An exchange for a setting, with the user's other options.
function M.open(self, setting)
  local o = {}
  for key, value in pairs(self.opts) do o[key] = value end
  o.compress, o.topology, o.check_after = self.specs[setting.compress] or setting.compress, setting.topology, nil
  o.down, o.inner = setting.down, setting.inner
  o.nested = self.work and true or nil -- the first one has compared the ranks' settings and started the watchdog
  local ex = self.make(o)
  if self.work then
    ex:set_step(self.work.step)
    if self.work.names then ex:set_names(self.work.names) end
    if self.work.epoch then ex:set_epoch(self.work.epoch) end
  end
  return ex
end

--- Closes the communicators that an exchange has made.
local function close(ex)
  for _, comm in pairs(ex.comms) do
    if comm ~= ex.comm then comm:close() end
  end
end

--- The exchange for a setting: the one at work, the one put aside, or a new one.
function M.take(self, setting)
  if choose.same(setting, self.setting) then return end
  local put_aside = self.work
  if self.aside and choose.same(self.aside.setting, setting) then
    self.work = self.aside.work
    self.work:set_step(put_aside.step)
  else
    if self.aside then close(self.aside.work) end
    self.work = M.open(self, setting)
  end
  self.aside = {work = put_aside, setting = self.setting}
  self.setting = setting
end

--- Ends what was put aside.
function M.discard(self)
  if self.aside then close(self.aside.work) end
  self.aside = false
end

--- Nothing will be tried any more.
function M.settle(self)
  self.settled = true
  M.discard(self)
  self.grads, self.works = {}, {}
  collectgarbage() -- the native memory of what was put aside
end

return M
