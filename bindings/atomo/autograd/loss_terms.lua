--- What a loss is made of: means or sums over a batch. A training step adds sums and averages means over micro-batches
-- and ranks (stage 3), so a scaled loss and a sum of losses must say which they are.
--   loss.terms = {kind = "mean", count = divisor of the mean, or nil for means with different divisors}
--   loss.terms = {kind = "sum", count = as above, parts = {{factor =, divisor =}, ...}}: by what each sum was
--                multiplied and divided; nil if it was not
--   loss.terms = {kind = "unclear", why = text}: a sum is in it, but the whole is no multiple of sums
-- atomo.F sets the field on its losses (nn/functional/counted.lua); + - * / and their methods pass it on.
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local is_tensor = T.is_tensor

local M = {}

local function unclear(why) return {kind = "unclear", why = why} end

--- Returns v as a number if it is one, or a constant tensor with one element; else nil.
local function constant(v)
  local n = number.of(v)
  if n or not is_tensor(v) then return n end
  return v.h.numel == 1 and not v.requires_grad and not v.terms and v:item() or nil
end

--- Returns the terms of a loss plus or minus v.
local function plus(terms, v)
  if terms.kind ~= "sum" and not (is_tensor(v) and v.terms) then return terms end
  if constant(v) then return terms end
  local other = v.terms
  if not other then return unclear "a sum and a tensor of which it is not known whether it is a mean or a sum" end
  if other.kind == "unclear" then return other end
  if other.kind ~= terms.kind then return unclear "a sum and a mean" end
  local parts
  if terms.kind == "sum" then
    parts = {}
    for _, list in ipairs {terms.parts, other.parts} do
      for _, part in ipairs(list) do parts[#parts + 1] = part end
    end
  end
  return {kind = terms.kind, count = terms.count == other.count and terms.count or nil, parts = parts}
end

--- Returns the terms of a loss multiplied by v, or divided if `key` is "divisor".
local function times(terms, v, key)
  local by = constant(v)
  if terms.kind == "mean" then
    if not by and is_tensor(v) and v.terms and v.terms.kind ~= "mean" then return unclear "a sum times a mean" end
    return terms
  end
  if by == -1 then return terms end
  if not by then return unclear(("a sum %s a tensor"):format(key == "divisor" and "divided by" or "times")) end
  local parts = {}
  for i, part in ipairs(terms.parts) do
    parts[i] = {factor = part.factor, divisor = part.divisor}
    parts[i][key] = (part[key] or 1) * by
  end
  return {kind = "sum", count = terms.count, parts = parts}
end

--- Returns the terms of name(a, b), of which a or b has terms.
function M.of(name, a, b)
  local first = is_tensor(a) and a.terms
  local terms, other = first or b.terms, b
  if not first then other = a end
  if terms.kind == "unclear" then return terms end
  if name == "neg" then return times(terms, -1, "factor") end
  if name == "add" or name == "sub" then return plus(terms, other) end
  if name == "mul" then return times(terms, other, "factor") end
  if name == "div" and first then return times(terms, other, "divisor") end
  local second = is_tensor(b) and b.terms
  if terms.kind == "mean" and not (second and second.kind ~= "mean") then return terms end
  return unclear(("a sum under %s"):format(name))
end

--- Sets the terms of y, the result of name(a, b), of which a or b has terms; returns y.
function M.pass_on(y, name, a, b)
  y.terms = M.of(name, a, b)
  return y
end

--- Sets what a loss is.
---@param loss atomo.Tensor
---@param kind "mean"|"sum"
---@param count number
function M.note(loss, kind, count)
  loss.terms = {kind = kind, count = count, parts = kind == "sum" and {{}} or nil}
end

--- Is x the number n up to rounding?
local function is(x, n) return math.abs(x - n) <= 1e-9 * n end

--- Classifies a sum. sizes: numbers over which a mean of the batch may be. Returns the size if each part was divided by
--- it: the loss is a mean; or nil and what is unclear; or nil, nil and the divisor of all parts (false: none or
--- several): the loss is a multiple of the sum.
function M.mean_over(terms, sizes)
  local over, all, divisor
  for _, part in ipairs(terms.parts) do
    local found
    for _, n in ipairs(sizes) do
      if part.divisor and is(part.divisor, n) then found = n end
      if not part.divisor and part.factor and is(math.abs(part.factor) * n, 1) then
        return nil, ("a sum times %.9g, and the batch has %d images or labels: it may be their mean or a " ..
          "multiple of the sum"):format(part.factor, n)
      end
    end
    if all and (found ~= over or part.divisor ~= divisor) then
      if found or over then return nil, "sums with different divisors" end
      divisor = nil
    elseif not all then
      over, divisor = found, part.divisor
    end
    all = true
  end
  if over then return over end
  return nil, nil, divisor or false
end

return M
