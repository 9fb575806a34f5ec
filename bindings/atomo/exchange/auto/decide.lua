--- Decisions by prediction of an exchange that chooses its setting (init.lua): at the first step, and again with
--- measured step times.
local choose = require "atomo.exchange.auto.choose"
local log = require "atomo.core.log"
local swap = require "atomo.exchange.auto.swap"

local M = {}

local figures = {"message", "encode", "decode", "copy"}

--- Measures, on the last step's gradients, the compressors that were not measured before. [collective]
local function measure(self, compressors)
  local timing = require "atomo.exchange.auto.measure"
  for _, name in ipairs(compressors) do
    if not self.works[name] then
      local w = timing.work(self.specs[name] or name, self.grads,
        {min_size = self.exchange.settings.min_size, fuse_small = self.opts.fuse_small})
      local mine = {}
      for k, key in ipairs(figures) do mine[k] = w[key] end
      for k, v in ipairs(swap.reduce(self, mine)) do w[figures[k]] = v end
      self.works[name] = w
    end
  end
  collectgarbage()
end

--- Returns the predictions for all settings, and the chosen one. Compressors are not measured while the exchange is
--- dense and adds less than choose.TRIFLE.
function M.decide(self)
  local function predict(compressors)
    measure(self, compressors)
    for _, name in ipairs(compressors) do self.works[name].backward = self.window end
    return choose.predict(choose.settings(compressors, self.net, self.only), self.net, self.works, self.base)
  end
  if self.free and self.setting.compress == "none" then
    local rows = predict {"none"}
    local dense = choose.best_of(rows, "none")
    if dense.cost.seconds <= choose.TRIFLE * self.base then return rows, dense end
  end
  local rows = predict(self.compressors)
  return rows, (choose.pick(rows))
end

--- Returns the prediction for the running setting. With other figures than when it was chosen, its topology may now
--- have another number of buckets in `rows`; then it is predicted by itself.
function M.running(self, rows)
  for _, row in ipairs(rows) do if choose.same(row, self.setting) then return row end end
  return choose.predict_one(self.setting, self.net, self.works, self.base)
end

function M.tell(self, text, event)
  event.event, event.step = "exchange", self.exchange.step
  self.exchange.notify(text, event)
end

local function announce(self, why, rows, taken)
  local text = ("exchange: %s; %s\n%s"):format(why, choose.network_text(self.net), choose.reasons(rows, taken))
  if #rows < #self.compressors then
    text = text .. ("\ndense adds %s to a step of %s: compressors were not measured"):format(
      log.duration(taken.cost.seconds), log.duration(taken.step))
  end
  M.tell(self, text, {why = why, choice = choose.name(taken), predicted = taken.step,
    predicted_exchange = taken.cost.seconds, network = self.net})
end

--- Measures the network. [collective]
function M.probe(self)
  local net = self.network(self.exchange.comm)
  net.checked = self.opts.checked ~= false
  return net
end

--- Makes the first choice, when the first step's gradients are complete and before anything is sent. [collective]
function M.begin(self)
  local step = self.exchange.current
  for i = 1, step.count do self.grads[i] = step.given[i] end
  self.exchange.comm:check("exchange: gradients", #self.grads)
  self.net = M.probe(self)
  self.probed = self.net
  self.window = self.opts.overlap == false and 0 or swap.reduce(self, {self.pushed_at - self.first_at}, "min")[1]
  self.base = swap.reduce(self, {1.5 * (self.pushed_at - self.first_at)})[1]
  local rows, taken = M.decide(self)
  announce(self, "first choice, by prediction", rows, taken)
  swap.use(self, taken)
  self.aside = false
end

--- Chooses again with measured seconds of a step, of the exchange in it, and of the window for overlap.
function M.refine(self, step, added, window)
  self.base = math.max(step - added, 0.1 * step)
  self.window = self.opts.overlap == false and 0 or window
  local rows, taken = M.decide(self)
  if choose.better(taken, M.running(self, rows)) then
    announce(self, ("chosen anew after %d steps"):format(self.steps), rows, taken)
    self.pending = taken
  end
end

return M
