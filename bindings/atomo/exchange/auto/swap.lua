--- What an exchange that chooses (init.lua) works with: opened for a setting, replaced, put aside during a trial,
-- closed. And how the ranks agree on figures.
local T = require "atomo.tensor"
local choose = require "atomo.exchange.auto.choose"
local routes = require "atomo.exchange.route"

local M = {}

--- A list of numbers, the largest (or least) over the ranks each; the same doubles on all. [collective]
function M.reduce(self, list, op)
  local t = T.outside_scope(T.zeros, #list)
  local p, result = t:data(), {}
  for i, v in ipairs(list) do p[i - 1] = v end
  self.exchange.comm:allreduce(t, op or "max")
  for i = 1, #list do result[i] = p[i - 1] end
  t:free()
  return result
end

function M.median(list)
  local sorted = {unpack(list)}
  table.sort(sorted)
  return sorted[math.ceil(#sorted / 2)]
end

--- The user's options with those of a setting.
function M.options(self, setting)
  local o = {}
  for key, value in pairs(self.opts) do o[key] = value end
  o.compress, o.topology, o.check_after = self.specs[setting.compress] or setting.compress, setting.topology, nil
  o.downlink, o.inter_node = setting.downlink, setting.inter_node
  return o
end

--- The exchange continues with a setting: what was put aside, or opened anew. Puts aside what it had.
function M.use(self, setting)
  if choose.same(setting, self.setting) then return end
  local aside = self.aside
  local chosen = aside and choose.same(aside.setting, setting) and aside.chosen
  if not chosen then
    if aside then routes.close(aside.chosen.route) end
    chosen = self.exchange:open(M.options(self, setting))
  end
  self.aside = {chosen = self.exchange:replace(chosen), setting = self.setting}
  self.setting = setting
end

--- Ends what was put aside.
function M.discard(self)
  if self.aside then routes.close(self.aside.chosen.route) end
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
