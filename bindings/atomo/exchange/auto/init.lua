--- topology = "auto" and compress = "auto": an exchange that chooses what it does by the cost model, and holds the
-- choice against the clock. It looks like any exchange; another one behind it does the work, replaced between steps.
--
-- The first step's gradients tell what the compressors cost, probes what the network does (probe.lua); the choice is
-- made (decide.lua), made again when a few steps have told how long backward and the rest of a step take, and checked
-- after check_after steps (clock.lua): where what the exchange adds was not as predicted, the model is corrected and
-- asked again, and a setting that then looks better is tried, turn and turn about. So is dense where a compressor was
-- chosen: it stays only where its steps are shorter. All figures are agreed by all ranks before they decide.
local f = require "atomo.ffi"
local choose = require "atomo.exchange.auto.choose"
local clock = require "atomo.exchange.auto.clock"
local decide = require "atomo.exchange.auto.decide"
local files = require "atomo.core.files"
local json = require "atomo.core.json"
local probe = require "atomo.exchange.auto.probe"
local swap = require "atomo.exchange.auto.swap"
local C, raise = f.C, f.raise

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

--- Between steps: the setting that was decided on.
local function switch(self)
  local setting = self.pending
  self.pending = false
  swap.take(self, setting)
  if not self.trial then swap.discard(self) end
end

--- As any exchange's push and finish; until the choice is settled with a look at the clock.
function Auto:push(i, grad)
  if self.settled then return self.work:push(i, grad) end
  if self.work.count == 0 then
    if self.pending then switch(self) end
    self.first_at = self.now()
  end
  self.work:push(i, grad)
  self.pushed_at = self.now()
end

function Auto:average_or_why()
  if self.settled then return self.work:average_or_why() end
  if self.steps == 0 then decide.begin(self) end
  self.coded = self.work:coding() -- while gradients came
  return self.work:average_or_why()
end

function Auto:commit()
  self.work:commit()
  if self.settled then return end
  local now, t = self.now(), self.times
  local seconds = now - self.ended
  t.step[#t.step + 1], t.added[#t.added + 1] = seconds, now - self.pushed_at + self.coded
  t.window[#t.window + 1] = math.max(0, self.pushed_at - self.first_at - self.coded)
  if #t.step > clock.KEPT then
    for _, list in pairs(t) do table.remove(list, 1) end
  end
  self.steps = self.steps + 1
  clock.look(self, seconds)
  self.ended = self.now()
end

--- As any exchange's, of the one at work and of the one put aside.
function Auto:replan()
  self.work:replan()
  if self.aside then self.aside.work:replan() end
end

--- A step that is given up does not count, nor does its time.
function Auto:drop()
  self.work:drop()
  self.ended = self.now()
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
  self.setting, self.work = s, swap.open(self, s)
  swap.settle(self)
end

--- An exchange that chooses. opts as atomo.exchange takes them; make makes the exchanges that work; given (by tests):
--- network and works (by compressor), in place of what is measured (network: a table, or a function that makes one),
--- and now, a clock. [collective]
---@param opts table
---@param make fun(opts: table): atomo.Exchange
---@param given {network: table|(fun(): table)?, works: table?, now: (fun(): number)?}?
local function new(opts, make, given)
  local _, free = wanted(opts)
  given = given or {}
  local names, specs = choose.compressors, {}
  if not free then
    local spec = opts.compress or "none"
    local text = tostring(require("atomo.compress").compressor(spec))
    names, specs[text] = {text}, spec
  end
  if type(given.network) == "table" then
    local net = given.network
    given = {network = function() return net end, works = given.works, now = given.now}
  end
  local open_to_choice = {auto = true, standard = true}
  local only = {topology = not open_to_choice[opts.topology] and opts.topology or nil, down = opts.down,
    inner = not open_to_choice[opts.inner] and opts.inner or nil}
  local self = {opts = opts, make = make, only = only, free = free, compressors = names, specs = specs, work = false,
    network = given.network or probe.network, net = false, probed = false, probed_again = false,
    works = given.works or {}, now = given.now or C.atomo_time,
    grads = {}, steps = 0, check_after = opts.check_after or 50, pending = false, aside = false, trial = false,
    tested = false, tried = {}, settled = false, seconds = 0, first_at = 0, pushed_at = 0, ended = 0, window = 0,
    coded = 0, base = 0, times = {step = {}, added = {}, window = {}}}
  -- Until the first gradients are there: what is to be sent, in the way that any compressor can go.
  local name = names[1]
  self.setting = {level = 1, compress = name, topology = name == "none" and "allreduce" or "allgather"}
  self.work = swap.open(self, self.setting)
  local rank = self.work.comm.rank
  self.notify = function(text) if rank == 0 then files.say(text) end end
  self.ended = self.now()
  return setmetatable(self, Auto)
end

return {new = new, wanted = wanted}
