--- topology = "auto" and compress = "auto": an exchange that chooses what it does by the cost model, and holds the
-- choice against the clock. It looks like any exchange; another one behind it does the work, replaced between steps.
--
-- The first step's gradients tell what the compressors cost, probes what the network does (probe.lua); the choice is
-- made (choose.lua), made again when WARM steps have told how long backward and the rest of a step take, and checked
-- after check_after steps: where what the exchange adds was not as predicted, the model is corrected and asked again,
-- and a setting that then looks better is tried, turn and turn about, for PAIRS steps. So is dense where a compressor
-- was chosen: it stays only where its steps are shorter. All figures are agreed by all ranks before they decide.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local choose = require "atomo.exchange.choose"
local json = require "atomo.json"
local log = require "atomo.log"
local C, raise = f.C, f.raise

local WARM, PAIRS, KEPT = 4, 4, 9 -- steps; steps each of a trial; steps whose times are kept

---@class atomo.AutoExchange: atomo.Exchange
local Auto = {}

-- What is not found here is the working exchange's.
function Auto.__index(self, key)
  local v = Auto[key]
  if v ~= nil then return v end
  return rawget(self, "work")[key]
end
function Auto.__newindex(self, key, value) self.work[key] = value end

--- Whether options ask for a measured choice: topology "auto", or the compressor "auto" without a budget.
---@return boolean wanted
---@return boolean free  the compressor, too, is to be chosen
local function wanted(opts)
  local c = opts.compress
  if type(c) == "table" and c.name == "auto" then
    c = "auto"
    for key in pairs(opts.compress) do if key ~= "name" then c = nil end end
  end
  return opts.topology == "auto" or c == "auto", c == "auto"
end

-- ---- agreement ---------------------------------------------------------------------------------------------------

--- A list of numbers, the largest (or least) over the ranks each; the same doubles on all. [collective]
local function agree(self, list, op)
  local t = T.outside_scope(T.zeros, #list)
  local p, result = t:data(), {}
  for i, v in ipairs(list) do p[i - 1] = v end
  self.work.comm:allreduce(t, op or "max")
  for i = 1, #list do result[i] = p[i - 1] end
  t:free()
  return result
end

local function median(list)
  local sorted = {unpack(list)}
  table.sort(sorted)
  return sorted[math.ceil(#sorted / 2)]
end

-- ---- the working exchange ----------------------------------------------------------------------------------------

--- An exchange for a setting, with the user's other options.
local function open(self, setting)
  local o = {}
  for key, value in pairs(self.opts) do o[key] = value end
  o.compress, o.topology, o.check_after = self.specs[setting.compress] or setting.compress, setting.topology, nil
  o.down, o.inner = setting.down, setting.inner
  local ex = require("atomo.exchange").exchange(o)
  ex.step = self.work and self.work.step or 0
  return ex
end

--- Closes the communicators that an exchange has made.
local function close(ex)
  for _, comm in pairs(ex.comms) do
    if comm ~= ex.comm then comm:close() end
  end
end

--- The exchange for a setting: the one at work, the one put aside, or a new one.
local function take(self, setting)
  if choose.same(setting, self.setting) then return end
  local put_aside = self.work
  if self.aside and choose.same(self.aside.setting, setting) then
    self.work = self.aside.work
    self.work.step = put_aside.step
  else
    if self.aside then close(self.aside.work) end
    self.work = open(self, setting)
  end
  self.aside = {work = put_aside, setting = self.setting}
  self.setting = setting
end

--- Nothing will be tried any more.
local function settle(self)
  self.settled, self.trial = true, false
  if self.aside then close(self.aside.work) end
  self.aside = false
  self.grads, self.works = {}, {}
  collectgarbage() -- the native memory of what was put aside
end

-- ---- the choice --------------------------------------------------------------------------------------------------

local figures = {"message", "encode", "decode", "copy"}

--- Measures the compressors not measured yet, on the gradients of the last step. [collective]
local function measure(self, compressors)
  local timing = require "atomo.exchange.timing"
  for _, name in ipairs(compressors) do
    if not self.works[name] then
      local w = timing.work(self.specs[name] or name, self.grads, self.work.min_size)
      local mine = {}
      for k, key in ipairs(figures) do mine[k] = w[key] end
      for k, v in ipairs(agree(self, mine)) do w[figures[k]] = v end
      self.works[name] = w
    end
  end
  collectgarbage()
end

--- Predictions for all settings, and the taken one. Compressors are not measured where dense runs and costs a trifle.
local function decide(self)
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

local function row_of(rows, setting)
  for _, row in ipairs(rows) do if choose.same(row, setting) then return row end end
end

local function tell(self, text, event)
  event.event, event.step = "exchange", self.work.step
  self.notify(text, event)
end

local function announce(self, why, rows, taken)
  local text = ("exchange: %s; %s\n%s"):format(why, choose.network_text(self.net), choose.reasons(rows, taken))
  if #rows < #self.compressors then
    text = text .. ("\ndense adds %s to a step of %s: compressors were not measured"):format(
      log.duration(taken.cost.seconds), log.duration(taken.step))
  end
  tell(self, text, {why = why, choice = choose.name(taken), predicted = taken.step,
    predicted_exchange = taken.cost.seconds, network = self.net})
end

--- The first step: its gradients are there, nothing was sent. [collective]
local function begin(self)
  local ex = self.work
  for i = 1, ex.count do self.grads[i] = ex.pushed[i] end
  self.work.comm:check("exchange: gradients", #self.grads)
  self.net = self.net or require("atomo.exchange.probe").network(ex.comm)
  self.window = self.opts.overlap == false and 0 or agree(self, {self.pushed_at - self.first_at}, "min")[1]
  self.base = agree(self, {1.5 * (self.pushed_at - self.first_at)})[1]
  local rows, taken = decide(self)
  announce(self, "first choice, by prediction", rows, taken)
  take(self, taken)
  if self.work ~= ex then
    ex.pushed, ex.count = {}, 0
    for i = 1, #self.grads do self.work:push(i, self.grads[i]) end
  end
  self.aside = false
end

--- Medians over the last n steps, agreed: of a step, of what exchange added (where it was least: the slowest rank waits
--- for nobody), and the time in which it can hide. [collective]
local function clock(self, n)
  local t = self.times
  local last = function(list) return {unpack(list, #list - n + 1)} end
  local steps, added, windows = agree(self, last(t.step)), agree(self, last(t.added), "min"),
    agree(self, last(t.window), "min")
  return median(steps), median(added), median(windows)
end

--- Predicts again with a step's times as they are.
local function refine(self)
  local step, added, window = clock(self, WARM - 1)
  self.base = math.max(step - added, 0.1 * step)
  self.window = self.opts.overlap == false and 0 or window
  local rows, taken = decide(self)
  if choose.better(taken, row_of(rows, self.setting)) then
    announce(self, ("chosen anew after %d steps"):format(WARM), rows, taken)
    self.pending = taken
  end
end

-- ---- against the clock -------------------------------------------------------------------------------------------

--- Corrects the model by what was seen of the running setting.
local function correct(self, row, added)
  local w, ms = self.works[self.setting.compress], self.work:stats().ms
  local seen = agree(self, {ms.encode / 1e3, ms.decode / 1e3})
  w.encode = w.encode > 0 and w.encode * seen[1] / math.max(row.cost.encode, 1e-9) or 0
  w.decode = w.decode > 0 and w.decode * seen[2] / math.max(row.cost.decode_all, 1e-9) or 0
  local decode = seen[2] * row.cost.decode / math.max(row.cost.decode_all, 1e-9)
  local slower = choose.slowdown(row, math.max(0, added - seen[1] - decode - row.cost.copy))
  self.net = choose.slower(self.net, slower)
end

--- The dense setting, where steps with it might be as short as `step`: not where a network half as slow again as
--- thought could not do it.
local function dense_rival(self, rows, step)
  local dense = choose.best_of(rows, "none")
  local quick = choose.predict({dense}, choose.slower(self.net, 1 / 1.5), self.works, self.base)[1]
  if quick.step > step then
    tell(self, ("exchange: dense steps would take at least %s, the present ones take %s: kept"):format(
      log.duration(quick.step), log.duration(step)),
      {why = "kept", choice = choose.name(self.setting), measured = step})
    return nil
  end
  return dense
end

--- check_after steps are over: is the exchange what was predicted?
local function check(self)
  local step, added, window = clock(self, KEPT)
  self.base, self.window = math.max(step - added, 0.1 * step), self.opts.overlap == false and 0 or window
  local rows = decide(self)
  local row = row_of(rows, self.setting)
  local off = (added - row.cost.seconds) / step
  local wrong = math.abs(off) > choose.WRONG
  tell(self, ("exchange: after %d steps: %s adds %s to a step of %s, %s were predicted%s"):format(self.steps,
    choose.name(row), log.duration(added), log.duration(step), log.duration(row.cost.seconds),
    wrong and ": corrected" or ""),
    {why = "checked", choice = choose.name(row), measured = step, measured_exchange = added,
      predicted_exchange = row.cost.seconds})
  if wrong then correct(self, row, added) end
  local corrected, taken = decide(self)
  local rival
  if choose.better(taken, row_of(corrected, self.setting)) then
    rival = taken
  elseif self.free and self.setting.compress ~= "none" then
    rival = dense_rival(self, corrected, step)
  end
  if not rival then return settle(self) end
  self.trial = {rival = rival, running = row, count = 0, seconds = {rival = {}, running = {}}}
  self.pending = rival
end

--- A step of the trial is over: rival (warms up), rival, running, rival, running, ...
local function trial_step(self, seconds)
  local t = self.trial
  if t.count > 0 then table.insert(t.count % 2 == 1 and t.seconds.rival or t.seconds.running, seconds) end
  t.count = t.count + 1
  self.pending = t.count % 2 == 1 and t.rival or t.running
  if t.count <= 2 * PAIRS then return end
  local rival, running = median(agree(self, t.seconds.rival)), median(agree(self, t.seconds.running))
  local won = choose.rival_wins(t.running, t.rival, running, rival)
  local winner = won and t.rival or t.running
  tell(self, ("exchange: by the clock: %s %s a step, %s %s: %s stays"):format(choose.name(t.running),
    log.duration(running), choose.name(t.rival), log.duration(rival), choose.name(winner)),
    {why = "tried", choice = choose.name(winner), measured = won and rival or running,
      measured_other = won and running or rival})
  self.trial, self.ending, self.pending = false, true, winner
end

--- After every step, between its end and the next one's first gradient.
local function look(self, seconds)
  if self.trial then return trial_step(self, seconds) end
  if self.steps == WARM then refine(self) end
  if self.steps == self.check_after then check(self) end
end

-- ---- the exchange's own verbs ------------------------------------------------------------------------------------

local function switch(self)
  local setting = self.pending
  self.pending = false
  take(self, setting)
  if self.ending then
    self.ending = false
    settle(self)
  elseif not self.trial then
    close(self.aside.work)
    self.aside = false
  end
end

function Auto:push(i, grad)
  if self.settled then return self.work:push(i, grad) end
  if self.work.count == 0 then
    if self.pending then switch(self) end
    self.first_at = C.atomo_time()
  end
  self.work:push(i, grad)
  self.pushed_at = C.atomo_time()
end

function Auto:finish()
  if self.settled then return self.work:finish() end
  if self.steps == 0 then begin(self) end
  local encoded = self.work.ms.encode / 1e3 -- while gradients came
  self.work:finish()
  local now, t = C.atomo_time(), self.times
  local seconds = now - self.ended
  t.step[#t.step + 1], t.added[#t.added + 1] = seconds, now - self.pushed_at + encoded
  t.window[#t.window + 1] = math.max(0, self.pushed_at - self.first_at - encoded)
  if #t.step > KEPT then
    for _, list in pairs(t) do table.remove(list, 1) end
  end
  self.steps = self.steps + 1
  look(self, seconds)
  self.ended = C.atomo_time()
end

--- What a checkpoint keeps of the choice, and how a run that goes on gets it back: it stays with it.
function Auto:choice()
  local s = self.pending or self.setting
  return json.encode {compress = s.compress, topology = s.topology, down = s.down, inner = s.inner, level = s.level}
end

function Auto:restore(text)
  local ok, s = pcall(json.decode, text)
  if not ok or type(s) ~= "table" or type(s.compress) ~= "string" or type(s.topology) ~= "string" then
    raise(("exchange: '%s' is no choice that a checkpoint holds"):format(tostring(text)))
  end
  if not self.free and s.compress ~= self.compressors[1] then
    raise(("exchange: the checkpoint was written with compress %s, this run asks for %s"):format(s.compress,
      self.compressors[1]))
  end
  self.setting, self.work = s, open(self, s)
  settle(self)
end

--- An exchange that chooses. opts as atomo.exchange takes them; given.network: figures in place of the probes'.
--- [collective]
---@param opts table
---@param given {network: table?}?
local function new(opts, given)
  local _, free = wanted(opts)
  local names, specs = choose.compressors, {}
  if not free then
    local spec = opts.compress or "none"
    local text = tostring(require("atomo.compress").compressor(spec))
    names, specs[text] = {text}, spec
  end
  local open_to_choice = {auto = true, standard = true}
  local only = {topology = not open_to_choice[opts.topology] and opts.topology or nil, down = opts.down,
    inner = not open_to_choice[opts.inner] and opts.inner or nil}
  local self = {opts = opts, only = only, free = free, compressors = names, specs = specs, works = {}, grads = {},
    net = given and given.network or false, steps = 0, check_after = opts.check_after or 50, pending = false,
    aside = false, trial = false, settled = false, ending = false, first_at = 0, pushed_at = 0, ended = C.atomo_time(),
    window = 0, base = 0, times = {step = {}, added = {}, window = {}}, work = false}
  -- Until the first gradients are there: what is to be sent, in the way that any compressor can go.
  local name = names[1]
  self.setting = {level = 1, compress = name, topology = name == "none" and "allreduce" or "allgather"}
  self.work = open(self, self.setting)
  local rank = self.work.comm.rank
  self.notify = function(text) if rank == 0 then print(text) end end
  return setmetatable(self, Auto)
end

return {new = new, wanted = wanted}
