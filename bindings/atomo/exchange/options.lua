--- The options of atomo.exchange: what each may be, and its standard value. One table; exchange.lua takes its values
-- from here, and a wrong one is refused with its name, what came and what was expected.
local raise = require("atomo.ffi").raise
local suggest = require "atomo.core.suggest"
local rules = require "atomo.exchange.compatibility"

local function is_boolean(v) return type(v) == "boolean" end
local function is_seconds(v) return type(v) == "number" and v >= 0 and v < math.huge end

--- Whether a value is one of these words; and the words, for messages.
local function one_of(...)
  local words, known = {...}, {}
  for _, word in ipairs(words) do known[word] = true end
  local last = table.remove(words)
  return function(v) return known[v] == true end, ("%s or %s"):format(table.concat(words, ", "), last)
end

---@param standard any  nil: none
---@param is (fun(v: any): boolean)?
---@param expected string?
local function option(name, standard, is, expected)
  return {name = name, standard = standard, is = is, expected = expected}
end

local topologies = {unpack(rules.topologies)}
topologies[#topologies + 1], topologies[#topologies + 2] = "standard", "auto"

-- An option without a test is tested where it is used: a communicator, a compressor's spec.
local list = {
  option("comm"),
  option("compress", "none"),
  option("topology", nil, one_of(unpack(topologies))),
  option("overlap", true, is_boolean, "true or false"),
  option("min_size", 1024, function(v) return type(v) == "number" and v >= 0 end, "a number of elements >= 0"),
  option("seed", 0),
  option("down", "dense", one_of("dense", "compress")),
  option("inner", "auto", one_of("auto", "allreduce", "allgather", "ps", "sharded")),
  option("small", "auto", one_of("auto", "dense", "compress")),
  option("check_after", nil, function(v) return type(v) == "number" and v % 1 == 0 and v >= 10 end,
    "a whole number of steps, 10 or more"),
  option("stall_warn", 60, is_seconds, "seconds, or 0 for never"),
  option("stall_abort", 600, is_seconds, "seconds, or 0 for never"),
  option("flight", "flight", function(v) return type(v) == "string" and v ~= "" end, "the beginning of a path"),
  option("checked", true, is_boolean, "true or false"),
}

local names, by_name = {}, {nested = option("nested", false)} -- nested: of an exchange inside another one
for i, o in ipairs(list) do names[i], by_name[o.name] = o.name, o end

local M = {}

--- Refuses options that there are not, and values that they cannot have.
---@param opts table
function M.check(opts)
  for key, value in pairs(opts) do
    local o = by_name[key]
    if not o then
      local near = suggest(tostring(key), names)
      raise(("exchange: unknown option '%s'%s, options are %s"):format(tostring(key),
        near and (", did you mean '%s'?"):format(near) or "", table.concat(names, ", ")))
    elseif o.is and not o.is(value) then
      raise(("exchange: %s is %s, expected %s"):format(key, tostring(value), o.expected))
    end
  end
end

--- The options' values, or the standard ones, as a table of settings; given: the options themselves.
function M.read(opts)
  local settings = {given = opts}
  for name, o in pairs(by_name) do
    settings[name] = opts[name]
    if settings[name] == nil then settings[name] = o.standard end
  end
  return settings
end

return M
