--- topology = "auto" and compress = "adaptive": an exchange that chooses its setting (topology, compressor) by the cost
-- model and checks the choice by measured times. Route, compressor and plan are replaced between steps.  At the first
-- step it measures the compressors on the gradients and the network by probes (probe.lua), and chooses (decide.lua). It
-- chooses again after a few steps, when the times of backward and of a step are known. After check_after steps
-- (clock.lua) it compares the exchange with the prediction and corrects the model if that was wrong. A setting that the
-- model then prefers is tried in alternating steps. If a compressor was chosen, dense is tried too, and the compressor
-- is kept only if its steps are shorter. Ranks agree on all figures before they decide.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local Exchange = require "atomo.exchange.exchange"
local choose = require "atomo.exchange.auto.choose"
local clock = require "atomo.exchange.auto.clock"
local decide = require "atomo.exchange.auto.decide"
local files = require "atomo.core.files"
local json = require "atomo.core.json"
local probe = require "atomo.exchange.auto.probe"
local sealed = require "atomo.exchange.sealed"
local swap = require "atomo.exchange.auto.swap"
local C, raise = f.C, f.raise

local Chooser = sealed({}, "exchange: chooser")

---@class atomo.AutoExchange: atomo.Exchange
---@field chooser table  measurements, and the setting chosen
local Auto = setmetatable({__newindex = Exchange.__newindex}, {__index = Exchange})
Auto.__index = Auto

--- Do the options ask for a measured choice: topology "auto" or compress "adaptive"?
---@return boolean wanted
---@return boolean free  the compressor is chosen too
local function wanted(opts)
  local c = opts.compress
  local adaptive = c == "adaptive" or type(c) == "table" and c.name == "adaptive"
  return opts.topology == "auto" or adaptive, adaptive
end

--- Called between steps: changes to the setting that was decided on.
local function switch(chooser)
  local setting = chooser.pending
  chooser.pending = false
  swap.use(chooser, setting)
  if not chooser.trial then swap.discard(chooser) end
end

--- As Exchange:push; records the times of the first and last gradient until the choice is final.
function Auto:push(i, grad)
  local chooser = self.chooser
  if chooser.settled then return Exchange.push(self, i, grad) end
  if not self.current then
    if chooser.pending then switch(chooser) end
    chooser.first_at = chooser.now()
  end
  Exchange.push(self, i, grad)
  chooser.pushed_at = chooser.now()
end

function Auto:average_or_why()
  local chooser = self.chooser
  if not chooser.settled then
    if chooser.steps == 0 then decide.begin(chooser) end
    chooser.coded = self:coding() -- seconds of encoding and decoding until the last gradient
  end
  return Exchange.average_or_why(self)
end

function Auto:commit()
  Exchange.commit(self)
  local chooser = self.chooser
  if chooser.settled then return end
  local now, t = chooser.now(), chooser.times
  local seconds = now - chooser.ended
  t.step[#t.step + 1], t.added[#t.added + 1] = seconds, now - chooser.pushed_at + chooser.coded
  t.window[#t.window + 1] = math.max(0, chooser.pushed_at - chooser.first_at - chooser.coded)
  if #t.step > clock.KEPT then
    for _, list in pairs(t) do table.remove(list, 1) end
  end
  chooser.steps = chooser.steps + 1
  clock.look(chooser, seconds)
  chooser.ended = chooser.now()
end

--- As Exchange:replan; also for the setting that is set aside during a trial.
function Auto:replan()
  Exchange.replan(self)
  local aside = self.chooser.aside
  if not aside then return end
  local mine = self:replace(aside.chosen)
  Exchange.replan(self)
  aside.chosen = self:replace(mine)
end

--- As Exchange:drop; the step and its time are not counted.
function Auto:drop()
  Exchange.drop(self)
  self.chooser.ended = self.chooser.now()
end

--- Returns the choice as text for a checkpoint. A resumed run restores it and does not choose again.
function Auto:choice()
  local s = self.chooser.pending or self.chooser.setting
  return json.encode {compress = s.compress, topology = s.topology, down = s.downlink,
    inner = s.inter_node, level = s.level, buckets = s.message_buckets}
end

function Auto:restore(text)
  local chooser = self.chooser
  local ok, s = pcall(json.decode, text)
  if not ok or type(s) ~= "table" or type(s.compress) ~= "string" or type(s.topology) ~= "string" then
    raise(("exchange: '%s' is no choice that a checkpoint holds"):format(brief(text)))
  end
  if not chooser.free and s.compress ~= chooser.compressors[1] then
    raise(("exchange: the checkpoint was written with compress %s, this run asks for %s"):format(s.compress,
      chooser.compressors[1]))
  end
  chooser.setting = {compress = s.compress, topology = s.topology, downlink = s.down, inter_node = s.inner,
    level = s.level, message_buckets = s.buckets}
  self:replace(self:open(swap.options(chooser, chooser.setting)))
  swap.settle(chooser)
end

--- Opens an exchange that chooses its setting. [collective]
---@param opts table  options of atomo.exchange
---@param given {network: table|(fun(): table)?, works: table?, now: (fun(): number)?}?  for tests, in place of
--- measurements: the network or a function that returns it, compressor -> work, and a clock
local function new(opts, given)
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
  local open_to_choice = {auto = true, default = true}
  local only = {topology = not open_to_choice[opts.topology] and opts.topology or nil,
    downlink = opts.downlink, message_buckets = opts.message_buckets,
    inter_node = not open_to_choice[opts.inter_node] and opts.inter_node or nil}
  local chooser = {exchange = false, opts = opts, only = only, free = free, compressors = names, specs = specs,
    network = given.network or probe.network, net = false, probed = false, probed_again = false,
    works = given.works or {}, now = given.now or C.atomo_time,
    grads = {}, steps = 0, check_after = opts.check_after or 50, pending = false, aside = false, trial = false,
    tested = false, tried = {}, settled = false, seconds = 0, first_at = 0, pushed_at = 0, ended = 0, window = 0,
    coded = 0, base = 0, times = {step = {}, added = {}, window = {}}}
  -- The setting until the first gradients are complete: a topology that every compressor can use.
  local name = names[1]
  chooser.setting = {level = 1, compress = name, topology = name == "none" and "allreduce" or "allgather"}
  local self = Exchange.new(swap.options(chooser, chooser.setting), Auto)
  local rank = self.comm.rank
  self.chooser, chooser.exchange = setmetatable(chooser, Chooser), self
  self.notify = function(text) if rank == 0 then files.say(text) end end
  chooser.ended = chooser.now()
  return self
end

return {new = new, wanted = wanted}
