--- Exponential moving average of weights: average = decay * average + (1 - decay) * weights at every update.
--   local ema = atomo.optim.ema {params = model:parameters(), decay = 0.999}
--   atomo.train {..., on_step = function() ema:update() end}
--   ema:with(function() ... evaluate ... end)
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local expect_function = require "atomo.core.callable"
local assign = require "atomo.tensor.assign"
local autograd = require "atomo.autograd"
local blocks = require "atomo.core.blocks"
local O = require "atomo.tensor.check_options"
local check_apart = require "atomo.optim.apart"
local holders = require "atomo.nn.holders"
local strict_fields = require "atomo.core.fields"
local raise = f.raise

---@class atomo.EMA
---@field averages atomo.Tensor[]
---@field updates integer
---@field decay number     may be set at any time
---@field first number     decay before the first update
---@field swapped boolean  are the averages in the parameters, and the weights in `averages`?
local EMA = strict_fields({}, "ema", "averages updates params decay swapped")
EMA.__index = EMA

local function check_decay(what, decay)
  if type(decay) ~= "number" or not (decay >= 0 and decay < 1) then
    raise(("%s: decay is %s, expected 0 <= decay < 1"):format(what, number.text(decay)))
  end
end

--- atomo.optim.ema {params=, decay=0.999}. The averages start as copies of the weights.
---@param opts {params: atomo.Tensor[], decay: number?}
---@return atomo.EMA
---@usage atomo.optim.ema({params = m:parameters(), decay = 0.99}).decay --> 0.99
local function new(opts)
  if type(opts) ~= "table" or type(opts.params) ~= "table" or #opts.params == 0 then
    raise "ema: params is missing or empty, expected a list of parameters"
  end
  length(opts.params, "ema: params")
  O.check("ema", opts, {params = true, decay = true})
  local decay = opts.decay or 0.999
  check_decay("ema", decay)
  local self = setmetatable({params = opts.params, decay = decay, first = decay, averages = {}, updates = 0,
    swapped = false}, EMA)
  local seen = {}
  for i, p in ipairs(opts.params) do
    if seen[p] then raise(("ema: parameter %d is listed twice"):format(i)) end
    seen[p] = true
    T.expect(p, ("ema: parameter %d"):format(i), "f32")
  end
  check_apart("ema", opts.params)
  self.holders = holders.claim(opts.params, {opts.params})
  T.outside_scope(function()
    for i, p in ipairs(opts.params) do self.averages[i] = p:detach():clone() end
  end)
  return self
end

--- Raises unless self has averages: a method may be called with "." in place of ":".
local function expect(self)
  if type(self) == "table" and self.averages then return end
  raise(("a method of an average was called on a %s: write ema:method(...), with a colon"):format(type(self)))
end

--- Raises if weights and averages are swapped.
local function expect_in_place(self, what)
  expect(self)
  if not self.swapped then return end
  raise(("ema: %s: the averages are in place of the weights (ema:with, ema:swap); do it before or after"):format(what))
end

--- Updates the averages with the present weights.
---@usage ema:update()
function EMA:update()
  expect_in_place(self, "update")
  holders.check(self.params, "ema")
  for i, p in ipairs(self.params) do T.expect(p, ("ema: update: parameter %d"):format(i)) end
  check_decay("ema: update", self.decay)
  if self.updates == 0 then self.first = self.decay end
  self.updates = self.updates + 1
  autograd.no_grad(function()
    for i, a in ipairs(self.averages) do a:mul_(self.decay):axpy_(1 - self.decay, self.params[i]) end
  end)
end

--- Swaps the values of weights and averages; a second call swaps them back.
---@usage ema:swap() ema:swap()
function EMA:swap()
  expect(self)
  if not self.swapped then holders.check(self.params, "ema") end
  self.swapped = not self.swapped
  autograd.no_grad(T.scope, function()
    for i, a in ipairs(self.averages) do
      local weights = self.params[i]:clone()
      self.params[i]:copy_(a)
      a:copy_(weights)
    end
  end)
end

--- Runs fn(...) with the averages in place of the weights; returns fn's results. The weights are restored, also after
--- an error, and while a coroutine that yields in fn does not run. Inside itself it only runs fn.
---@param fn function
---@param ... any its arguments
---@return any fn's results
---@usage ema:with(function() return 7 end) --> 7
function EMA:with(fn, ...)
  expect(self)
  expect_function("ema: with", fn)
  if self.swapped then return fn(...) end
  local function swap() self:swap() end
  return blocks.change(swap, swap, fn, ...)
end

--- Returns the key of average i in a state: the parameter's name if it is known, else its number.
local function key_of(self, i, names) return names and names[self.params[i]] or tostring(i) end

--- Returns the state: {updates=, ["1"]=tensor, ...}, with the parameters' names as keys if they are given; ["*decay"],
--- if the decay was set after the first update.
---@param names table<atomo.Tensor, string>?  parameter -> name, from a checkpoint
---@return table
---@usage ema:state_dict().updates --> 0
function EMA:state_dict(names)
  expect_in_place(self, "state_dict")
  local s = {updates = self.updates, ["*decay"] = self.updates > 0 and self.decay ~= self.first and self.decay or nil}
  for i, a in ipairs(self.averages) do s[key_of(self, i, names)] = a end
  return s
end

--- Raises for an entry of a state that belongs to no average.
local function check_known(self, s, names)
  local known = {updates = true, ["*decay"] = true}
  for i in ipairs(self.averages) do known[key_of(self, i, names)] = true end
  for key in pairs(s) do
    if not known[key] then
      raise(("ema: load_state_dict: '%s' belongs to no average, there are %d"):format(brief(key), #self.averages))
    end
  end
end

--- Restores a result of state_dict. Raises if an entry does not fit.
---@param names table<atomo.Tensor, string>?
---@param s table
---@usage ema:load_state_dict(ema:state_dict())
function EMA:load_state_dict(s, names)
  expect_in_place(self, "load_state_dict")
  if type(s) ~= "table" then raise "ema: load_state_dict: expected what an average's state_dict() gives" end
  number.expect_whole(s.updates, "ema: load_state_dict: updates", 0)
  for i, a in ipairs(self.averages) do
    local given = s[key_of(self, i, names)]
    local fits = T.is_tensor(given) and given:dtype() == "f32"
    if not fits or T.shape_text(given) ~= T.shape_text(a) then
      raise(("ema: load_state_dict: average %d is %s, expected f32 %s"):format(i,
        T.is_tensor(given) and given:dtype() .. " " .. T.shape_text(given) or "missing", T.shape_text(a)))
    end
  end
  check_known(self, s, names)
  local decay = s["*decay"]
  if decay ~= nil then check_decay("ema: load_state_dict", decay) end
  if self.updates == 0 then self.first = self.decay end
  self.decay = decay or self.first
  local values = {}
  for i in ipairs(self.averages) do values[i] = s[key_of(self, i, names)] end
  assign(self.averages, values)
  self.updates = s.updates
end

return {ema = new}
