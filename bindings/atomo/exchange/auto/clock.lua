--- Measured times of an exchange that chooses its setting (init.lua): compares them with the prediction, corrects the
-- model, and tries other settings.
local decide = require "atomo.exchange.auto.decide"
local choose = require "atomo.exchange.auto.choose"
local log = require "atomo.core.log"
local median = require "atomo.core.median"
local swap = require "atomo.exchange.auto.swap"

-- WARM: steps before the first refinement; PAIRS: measured steps of each setting in a trial; KEPT: steps whose times
-- are kept
local WARM, PAIRS, KEPT = 4, 4, 9

local M = {KEPT = KEPT}

--- Returns medians over the last n steps, equal on all ranks: seconds of a step, seconds that the exchange added (the
--- least over the ranks: the slowest rank waits for nobody), and seconds in which the exchange can overlap.
--- [collective]
local function clock(self, n)
  local t = self.times
  local last = function(list) return {unpack(list, #list - n + 1)} end
  local steps, added, windows = swap.reduce(self, last(t.step)), swap.reduce(self, last(t.added), "min"),
    swap.reduce(self, last(t.window), "min")
  return median(steps), median(added), median(windows)
end

--- Corrects the model's work and network by the measured times of the running setting. added: measured seconds.
local function correct(self, row, added)
  local w, ms = self.works[self.setting.compress], self.exchange:stats().ms
  local seen = swap.reduce(self, {ms.encode / 1e3, ms.decode / 1e3})
  local decode = 0
  if row.cost.encode > 0 then w.encode = w.encode * seen[1] / row.cost.encode end
  if row.cost.decode_all > 0 then
    w.decode = w.decode * seen[2] / row.cost.decode_all
    decode = seen[2] * row.cost.decode / row.cost.decode_all
  end
  local slower = choose.slowdown(row, math.max(0, added - seen[1] - decode - row.cost.copy))
  self.net = choose.slower(self.net, slower)
end

--- Returns the best dense setting if its steps might be as short as the present ones, else nil. It is ruled out if its
--- predicted step is longer even on a network 1.5 times as fast as each of: the first measurement, a new one, the
--- corrected model. [collective]
local function dense_rival(self, rows)
  local dense, quick = choose.best_of(rows, "none"), nil
  self.probed_again = self.probed_again or decide.probe(self)
  for _, net in ipairs {self.probed, self.probed_again, self.net} do
    local row = choose.predict({dense}, choose.slower(net, 1 / 1.5), self.works, self.base)[1]
    if not quick or row.step < quick.step then quick = row end
  end
  if quick.step <= self.seconds then return dense end
  decide.tell(self, ("exchange: dense steps would take at least %s, the present ones take %s: kept"):format(
    log.duration(quick.step), log.duration(self.seconds)),
    {why = "kept", choice = choose.name(self.setting), measured = self.seconds})
end

--- Returns the next setting to be tried, and the running one; nothing if all were tried. Candidates are the one that
--- the model now prefers, and dense if a compressor was chosen; each is tried once.
local function next_rival(self)
  local rows, taken = decide.decide(self)
  local running = decide.running(self, rows)
  local rival = choose.better(taken, running) and taken or nil
  if (not rival or self.tried[choose.name(rival)]) and self.free and self.setting.compress ~= "none" then
    rival = dense_rival(self, rows)
  end
  if rival and not self.tried[choose.name(rival)] then return rival, running end
end

--- Begins the next trial; without one, the running setting is kept for good.
local function begin_next_trial(self)
  local rival, running = next_rival(self)
  if not rival then return swap.settle(self) end
  self.tried[choose.name(rival)], self.tried[choose.name(running)] = true, true
  self.trial = {rival = rival, running = running, count = 0, seconds = {rival = {}, running = {}}}
  self.pending = rival
end

--- Called after check_after steps: compares measured and predicted exchange, corrects the model if it is wrong, begins
--- the trials.
local function check(self)
  local step, added, window = clock(self, KEPT)
  self.base, self.window = math.max(step - added, 0.1 * step), self.opts.overlap == false and 0 or window
  self.seconds = step
  local rows = decide.decide(self)
  local row = decide.running(self, rows)
  local wrong = math.abs(added - row.cost.seconds) > choose.WRONG * step
  decide.tell(self, ("exchange: after %d steps: %s adds %s to a step of %s, %s were predicted%s"):format(self.steps,
    choose.name(row), log.duration(added), log.duration(step), log.duration(row.cost.seconds),
    wrong and ": corrected" or ""),
    {why = "checked", choice = choose.name(row), measured = step, measured_exchange = added,
      predicted_exchange = row.cost.seconds})
  if wrong then correct(self, row, added) end
  begin_next_trial(self)
end

--- Called after each step of a trial. Steps alternate: rival (warms up), rival, running, rival, running, ...
local function trial_step(self, seconds)
  local t = self.trial
  if t.count > 0 then table.insert(t.count % 2 == 1 and t.seconds.rival or t.seconds.running, seconds) end
  t.count = t.count + 1
  self.pending = t.count % 2 == 1 and t.rival or t.running
  if t.count <= 2 * PAIRS then return end
  local rival = median(swap.reduce(self, t.seconds.rival))
  local running = median(swap.reduce(self, t.seconds.running))
  local won = choose.rival_wins(t.running, t.rival, running, rival)
  local winner = won and t.rival or t.running
  decide.tell(self, ("exchange: measured: %s %s per step, %s %s: %s is kept"):format(choose.name(t.running),
    log.duration(running), choose.name(t.rival), log.duration(rival), choose.name(winner)),
    {why = "tried", choice = choose.name(winner), measured = won and rival or running,
      measured_other = won and running or rival})
  self.trial, self.tested, self.pending, self.seconds = false, true, winner, won and rival or running
end

--- Called after every step, before the next one's first gradient. seconds: of the step.
function M.look(self, seconds)
  if self.trial then
    trial_step(self, seconds)
  elseif self.tested then -- one step with the winner has passed since the trial
    self.tested = false
    begin_next_trial(self)
  elseif self.steps == WARM then
    decide.refine(self, clock(self, WARM - 1))
  elseif self.steps == self.check_after then
    check(self)
  end
end

return M
