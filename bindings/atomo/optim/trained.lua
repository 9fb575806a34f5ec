--- The parameters of an optimizer that are trained, that is, not frozen (requires_grad). Their gradients, numbered in
-- the optimizer's order, are those of the exchange; frozen ones are not sent. Parameters may be frozen between steps,
-- the same on all ranks; the exchange then makes a new plan (stages 3 to 8).
local f = require "atomo.ffi"
local T = require "atomo.tensor"

---@class atomo.Trained
---@field list atomo.Tensor[]
---@field index table<atomo.Tensor, integer>  parameter -> its index in list
---@field labels string[]        names of the parameters in list, for error texts
local Trained = {}
Trained.__index = Trained

---@param params atomo.Tensor[]     all parameters of the optimizer
---@param exchange atomo.Exchange?  nil if no gradients are exchanged
---@param names string[]?           names of params
local function new(params, exchange, names)
  return setmetatable({params = params, exchange = exchange, names = names, list = {}, index = {}}, Trained)
end

--- Returns names and shapes of the trained parameters, and names of the frozen ones.
local function describe(self)
  local names, shapes, frozen = {}, {}, {}
  for i, p in ipairs(self.params) do
    local name = self.names and self.names[i] or "gradient " .. i
    if p.requires_grad then
      names[#names + 1], shapes[#shapes + 1] = name, T.shape_text(p)
    else
      frozen[#frozen + 1] = name
    end
  end
  return names, shapes, frozen
end

--- Raises on every rank unless all freeze the same parameters. A rank without a change does not call this: it is then
--- in another operation, and the error shows this operation's name, so the name says what this rank freezes. That
--- operation may be on any communicator of the exchange, so they are compared on each; the one of all ranks is last.
--- [collective]
local function check_same(self, step, frozen)
  local all, comms = table.concat(frozen, ", "), self.exchange.route.comms
  local name = "freezes " .. (#frozen > 0 and all or "nothing")
  for k = 2, #comms + 1 do
    (comms[k] or comms[1]):check(name, ("step %d, frozen: %s"):format(step, all))
  end
end

local function equal(a, b)
  if not a or #a ~= #b then return false end
  for i, v in ipairs(a) do
    if b[i] ~= v then return false end
  end
  return true
end

--- Makes the exchange plan again for the present gradients, if it has a plan for others.
local function replan(self, names, shapes, first)
  local exchange = self.exchange
  if exchange.plan and not (first and equal(exchange.plan.shapes, shapes)) then exchange:replan() end
  if not exchange.plan and (self.names or #names < #self.params or not first) then exchange:set_names(names) end
end

local function renumber(self, step)
  local names, shapes, frozen = describe(self)
  local first = next(self.index) == nil
  if #names == 0 then
    f.raise "train: no parameter of the optimizer trains: all are frozen (requires_grad = false)"
  end
  self.index = {}
  for i, p in ipairs(self.list) do self.index[p] = i end
  self.labels = names
  if not self.exchange then return end
  if not first then check_same(self, step, frozen) end
  replan(self, names, shapes, first)
end

--- Updates list and index; called before every step. Raises if no parameter is trained.
function Trained:update(step)
  local params, list, n, changed = self.params, self.list, 0, false
  for i = 1, #params do
    local p = params[i]
    if p.requires_grad then
      n = n + 1
      if list[n] ~= p then list[n], changed = p, true end
    end
  end
  for k = #list, n + 1, -1 do list[k], changed = nil, true end
  if changed or n == 0 then renumber(self, step) end
end

return new
