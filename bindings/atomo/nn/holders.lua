--- Which modules hold a parameter, as module:parameters() has seen them. Optimizers and averages of weights ask before
-- each step whether their parameters are still there: one whose field was given another tensor, or whose module was
-- replaced, would be updated in silence while the model computes with the other one.
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"

local M = {}

local weak = {__mode = "k"}
local holders = setmetatable({}, weak) -- parameter, module or plain table -> {module or table that holds it -> its key}
local asked = setmetatable({}, weak)   -- modules whose parameters were asked for
local origin = setmetatable({}, weak)  -- list that module:parameters() returned -> the module
local trained = setmetatable({}, weak) -- list of an optimizer's or average's parameters -> set of the modules trained

function M.note_asked(module) asked[module] = true end

--- Notes that a list of parameters is what module:parameters() returned.
function M.note_list(list, module) origin[list], asked[module] = module, true end

--- Notes that a module or plain table holds a parameter, module or plain table under a key.
function M.note(held, holder, key)
  local of = holders[held]
  if not of then
    of = setmetatable({}, weak)
    holders[held] = of
  end
  of[holder] = key
end

--- Adds 1 to count[m] for x and all that hold it now. seen: what was counted for this x.
local function count_above(x, count, seen)
  if seen[x] then return end
  seen[x] = true
  count[x] = (count[x] or 0) + 1
  for holder, key in pairs(holders[x] or {}) do
    if rawget(holder, key) == x then count_above(holder, count, seen) end
  end
end

--- Adds x's holders, theirs, and so on to list.
local function add_above(x, list, seen)
  if seen[x] then return end
  seen[x] = true
  for holder, key in pairs(holders[x] or {}) do
    if rawget(holder, key) == x then
      list[#list + 1] = holder
      add_above(holder, list, seen)
    end
  end
end

--- Sets trained[params]: see M.claim.
local function note_trained(params, lists)
  local modules, number, count = {}, 0, {}
  for _, list in ipairs(lists) do
    local module = origin[list]
    if not module then return end
    if not modules[module] then
      modules[module], number = true, number + 1
      count_above(module, count, {})
    end
  end
  local all, any = setmetatable({}, weak), false
  for module, times in pairs(count) do
    if times == number and (number > 1 or modules[module]) then all[module], any = true, true end
  end
  if any then trained[params] = all end
end

--- Notes which modules an optimizer or average trains: the one whose parameters it was given; with several groups the
--- modules that contain them all; if that is not known, every module whose parameters were ever asked for.
---@param params atomo.Tensor[]   the list that M.check gets
---@param lists atomo.Tensor[][]  the lists of its groups, as the user gave them
---@return table[] all modules and tables that hold the parameters now. The optimizer keeps the list: M.check could not
--- tell that a module was replaced after it has been collected as garbage.
function M.claim(params, lists)
  local above, met = {}, {}
  for _, p in ipairs(params) do add_above(p, above, met) end
  note_trained(params, lists)
  return above
end

--- Returns whether x is still held by one of `roots` or by a module of which no holder is known; if not, also the one
--- that holds something else in its place, and the key. A field that is nil now is no mistake: the module computes
--- without it. open: what the caller is looking at, since a module may hold the one that holds it.
local function is_held(x, roots, open)
  local of, other, other_key = holders[x], nil, nil
  if roots[x] or not of or next(of) == nil then return true end
  open[x] = true
  local held = false
  for holder, key in pairs(of) do
    local now = rawget(holder, key)
    if now == nil then
      held = true
    elseif now ~= x then
      other, other_key = holder, key
    elseif not open[holder] then
      local above, above_key
      held, above, above_key = is_held(holder, roots, open)
      if above then other, other_key = above, above_key end
    end
    if held then break end
  end
  open[x] = nil
  return held, other, other_key
end

--- Returns "'weight' of a Linear"; for a key of a plain table "'2' in 'blocks' of a Net".
local function place(holder, key)
  local text = ("'%s'"):format(brief(key))
  for _ = 1, 8 do
    if holder.class_name then return text .. " of a " .. holder.class_name end
    local above, above_key = next(holders[holder] or {})
    if not above then break end
    holder, text = above, ("%s in '%s'"):format(text, brief(above_key))
  end
  return text .. " of a table"
end

--- Raises if one of the parameters of an optimizer or average is no longer part of the modules that held it.
---@param params atomo.Tensor[]
---@param user string "sgd", "ema", ...
function M.check(params, user)
  local roots, open, seen_again = trained[params] or asked, {}, false
  for i = 1, #params do
    local held, holder, key = is_held(params[i], roots, open)
    if not held and not seen_again then -- it may have moved in the model
      for module in pairs(roots) do module:named_modules() end
      held, holder, key = is_held(params[i], roots, open)
      seen_again = true
    end
    if not held and holder then
      raise(("%s: parameter %d was in %s, which now has something else there: make the %s after that, or keep it " ..
        "and change values, atomo.no_grad(function() m.weight:copy_(t) end)"):format(user, i, place(holder, key),
        user == "ema" and "average" or "optimizer"))
    end
  end
end

return M
