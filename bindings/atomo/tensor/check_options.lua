--- Checks tables of options: an unknown name raises, with the nearest known one.
local raise = require("atomo.ffi").raise
local is_tensor = require("atomo.tensor").is_tensor
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local suggest = require "atomo.core.suggest"

local M = {}

-- Names of options in PyTorch, Torch and Keras -> ours.
local synonyms = {
  batch_size = "batch", batchsize = "batch", learning_rate = "lr", learningrate = "lr", lrate = "lr",
  wd = "weight_decay", num_epochs = "epochs", max_epochs = "epochs", net = "model", network = "model",
  module = "model", loader = "data", train_loader = "data", dataset = "set", criterion = "loss",
  random_seed = "seed", manual_seed = "seed", parameters = "params",
}

--- Returns what to do about an unknown option: ", did you mean 'lr'?", or "".
local function hint(name, names)
  if type(name) == "number" then return ", options are named: name = value" end
  local word = synonyms[brief(name):lower()]
  for _, known in ipairs(names) do
    if known == word then return (", did you mean '%s'?"):format(word) end
  end
  local near = suggest(brief(name), names)
  return near and (", did you mean '%s'?"):format(near) or ""
end

--- Raises that option `name` is unknown, with the known ones and the nearest.
---@param who string  the function that takes the options: "conv2d"
---@param name any
---@param names string[]  the known options; sorted in place
function M.unknown(who, name, names)
  table.sort(names)
  raise(("%s: unknown option '%s'%s, options are %s"):format(who, brief(name), hint(name, names),
    #names > 0 and table.concat(names, ", ") or "none"))
end

--- Returns a set of the names of all options in tables of rules.
---@param ... table<string, any>
---@return table<string, boolean>
function M.names(...)
  local all = {}
  for i = 1, select("#", ...) do
    for name in pairs((select(i, ...))) do all[name] = true end
  end
  return all
end

-- ---- rules: rule(value) returns nil, or the text of what was expected if the value is refused ----------------------

function M.flag(v) return type(v) ~= "boolean" and "true or false" or nil end

--- A finite number from least to most (default: any).
function M.number(least, most)
  local text = least and most and ("a number from %g to %g"):format(least, most) or
    least and ("a number >= %g"):format(least) or "a number"
  return function(v)
    local ok = type(v) == "number" and v == v and math.abs(v) < math.huge
    return not (ok and (not least or v >= least) and (not most or v <= most)) and text or nil
  end
end

--- A whole number >= least (default: any); int64_t is accepted.
function M.whole(least)
  local text = least and ("a whole number >= %d"):format(least) or "a whole number"
  return function(v) return not number.whole(v, least) and text or nil end
end

function M.one_of(...)
  local words, known = {...}, {}
  for _, word in ipairs(words) do known[word] = true end
  local last = table.remove(words)
  local text = ("%s or %s"):format(table.concat(words, ", "), last)
  return function(v) return not known[v] and text or nil end
end

--- An f32 tensor.
function M.tensor(v)
  if not is_tensor(v) then return "an f32 tensor" end
  return v:dtype() ~= "f32" and "f32" or nil
end

local function text_of(v)
  if is_tensor(v) then return v:dtype() end
  return type(v) == "string" and ("'%s'"):format(brief(v)) or brief(v)
end

local function names_of(...)
  local names = {}
  for i = 1, select("#", ...) do
    for k in pairs((select(i, ...))) do names[#names + 1] = k end
  end
  return names
end

--- Raises unless opts is a table of known options with accepted values. The tables that follow map an option's name to
--- its rule, or to true if the value is checked elsewhere.
function M.check(who, opts, ...)
  if type(opts) ~= "table" then raise(("%s: options are a %s, expected a table"):format(who, type(opts))) end
  for name, v in pairs(opts) do
    local rule
    for i = 1, select("#", ...) do
      if rule == nil then rule = (select(i, ...))[name] end
    end
    if rule == nil then M.unknown(who, name, names_of(...)) end
    local expected = type(rule) == "function" and rule(v)
    if expected then
      raise(("%s: %s is %s, expected %s"):format(who, name, text_of(v), expected))
    end
  end
end

--- Raises if an argument follows those that the function takes: it would be ignored silently.
function M.none(who, ...)
  if select("#", ...) > 0 and (...) ~= nil then
    raise(("%s: got a %s, it takes no options"):format(who, type((...))))
  end
end

return M
