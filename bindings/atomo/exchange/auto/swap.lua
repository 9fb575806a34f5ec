--- Replaces the setting of an exchange that chooses (init.lua): opens it, sets the former one aside during a trial,
-- closes it. Also the reduction by which ranks agree on figures.
local T = require "atomo.tensor"
local choose = require "atomo.exchange.auto.choose"
local routes = require "atomo.exchange.route"

local M = {}

--- Returns a list with the largest (op "min": least) value over the ranks of each number, the same doubles on all
--- ranks. [collective]
function M.reduce(self, list, op)
  local t = T.outside_scope(T.zeros, #list)
  local p, result = t:data(), {}
  for i, v in ipairs(list) do p[i - 1] = v end
  self.exchange.comm:allreduce(t, op or "max")
  for i = 1, #list do result[i] = p[i - 1] end
  t:free()
  return result
end

--- Returns the user's options with those of a setting in place.
function M.options(self, setting)
  local o = {}
  for key, value in pairs(self.opts) do o[key] = value end
  o.compress, o.topology, o.check_after = self.specs[setting.compress] or setting.compress, setting.topology, nil
  o.downlink, o.inter_node, o.message_buckets = setting.downlink, setting.inter_node, setting.message_buckets
  return o
end

--- Changes the exchange to a setting, which is the one set aside or is opened; sets the present one aside.
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

--- Closes the setting that was set aside.
function M.discard(self)
  if self.aside then routes.close(self.aside.chosen.route) end
  self.aside = false
end

--- Makes the choice final: no more trials.
function M.settle(self)
  self.settled = true
  M.discard(self)
  self.grads, self.works = {}, {}
  collectgarbage() -- frees the native memory of the setting that was set aside
end

return M
