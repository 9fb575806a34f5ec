--- Which of an optimizer's parameters train: those that are not frozen (requires_grad). They are the gradients that the
-- exchange is given, numbered in the optimizer's order; a frozen one is not sent. The set may change between steps, on
-- all ranks alike, and the exchange plans anew (stages 3 to 8).
local f = require "atomo.ffi"
local T = require "atomo.tensor"

---@class atomo.Trained
---@field list atomo.Tensor[]
---@field index table<atomo.Tensor, integer>  place in the list
---@field labels string[]        their names, for messages
local Trained = {}
Trained.__index = Trained

--- exchange: nil where no gradients are exchanged; names: of the parameters in the optimizer's order, or nil.
---@param params atomo.Tensor[]
---@param exchange atomo.Exchange?
---@param names string[]?
local function new(params, exchange, names)
  return setmetatable({params = params, exchange = exchange, names = names, list = {}, index = {}}, Trained)
end

--- Name, and shape, of each that trains; names of those that do not.
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

--- Raises on every rank unless all freeze the same. The name of the operation says what this rank does: ranks that do
--- not think of a change are elsewhere by now. [collective]
local function check_same(self, step, frozen)
  local all = table.concat(frozen, ", ")
  self.exchange.comm:check("freezes " .. (#frozen > 0 and all or "nothing"), ("step %d, frozen: %s"):format(step, all))
end

local function equal(a, b)
  if not a or #a ~= #b then return false end
  for i, v in ipairs(a) do
    if b[i] ~= v then return false end
  end
  return true
end

--- The exchange begins with the gradients that there are now.
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

--- Brings list and index up to date; before every step.
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
