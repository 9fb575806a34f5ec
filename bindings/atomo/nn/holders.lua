--- Which modules hold a parameter, as module:parameters() has seen them. Optimizers and averages of weights ask before
-- each step whether their parameters are still there: one whose field was given another tensor, or whose module was
-- replaced, would be updated in silence while the model computes with the other one.
local raise = require("atomo.ffi").raise

local M = {}

local weak = {__mode = "k"}
local holders = setmetatable({}, weak) -- parameter or module -> {module that holds it -> its field}
local roots = setmetatable({}, weak)   -- modules whose parameters were asked for; they need no holder

function M.note_root(module) roots[module] = true end

--- Notes that a module's field holds a parameter or module.
function M.note(held, module, field)
  local of = holders[held]
  if not of then
    of = setmetatable({}, weak)
    holders[held] = of
  end
  of[module] = field
end

--- Returns whether x is still held by a root or by a module of which no holder is known; if not, also the module that
--- holds something else in its place, and the field. A field that is nil now is no mistake: the module computes without
--- it. open: what the caller is looking at, since a module may hold the one that holds it.
local function is_held(x, open)
  local of, other, other_field = holders[x], nil, nil
  if roots[x] or not of or next(of) == nil then return true end
  open[x] = true
  local held = false
  for module, field in pairs(of) do
    local now = rawget(module, field)
    if now == nil then
      held = true
    elseif now ~= x then
      other, other_field = module, field
    elseif not open[module] then
      local above, above_field
      held, above, above_field = is_held(module, open)
      if above then other, other_field = above, above_field end
    end
    if held then break end
  end
  open[x] = nil
  return held, other, other_field
end

--- Raises if one of the parameters of an optimizer or average is no longer part of the modules that held it.
---@param params atomo.Tensor[]
---@param user string "sgd", "ema", ...
function M.check(params, user)
  local open = {}
  for i = 1, #params do
    local held, module, field = is_held(params[i], open)
    if not held and module then
      raise(("%s: parameter %d was in '%s' of a %s, which now has something else there: make the %s after that, or " ..
        "keep it and change values, atomo.no_grad(function() m.weight:copy_(t) end)"):format(user, i, tostring(field),
        module.class_name, user == "ema" and "average" or "optimizer"))
    end
  end
end

return M
