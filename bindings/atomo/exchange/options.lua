--- The options of atomo.exchange in one table: names, defaults and tests. A wrong value raises its name, the value and
-- what was expected.
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"
local renamed = require "atomo.core.renamed"
local suggest = require "atomo.core.suggest"
local rules = require "atomo.exchange.compatibility"

local function is_boolean(v) return type(v) == "boolean" end
local function is_seconds(v) return type(v) == "number" and v >= 0 and v < math.huge end

--- Returns a test for these words, and a text that lists them.
local function one_of(...)
  local words, known = {...}, {}
  for _, word in ipairs(words) do known[word] = true end
  local last = table.remove(words)
  return function(v) return known[v] == true end, ("%s or %s"):format(table.concat(words, ", "), last)
end

---@param standard any  default, nil for none
---@param is (fun(v: any): boolean)?
---@param expected string?
---@param value_of (fun(v: any): any)?  returns the part of v that an old value may stand for; default: v itself
local function option(name, standard, is, expected, value_of)
  local old = renamed.exchange[name] or {}
  return {name = name, standard = standard, is = is, expected = expected, was = old.was,
    was_value = old.values and function(v) return old.values[value_of and value_of(v) or v] end}
end

local topologies = {unpack(rules.topologies)}
topologies[#topologies + 1], topologies[#topologies + 2] = "default", "auto"
local is_topology, topologies_text = one_of(unpack(topologies))

--- Returns the name in a compressor's text or table if it has no options, else nil.
local function bare_name(spec)
  if type(spec) ~= "table" then return spec end
  for key in pairs(spec) do if key ~= "name" then return nil end end
  return spec.name
end

--- Is v a valid value of compress? `adaptive` has no options.
local function is_compress(v)
  local name = type(v) == "table" and v.name or type(v) == "string" and v:match "^%s*(%a+)%s*[:;]"
  return name ~= "adaptive" or bare_name(v) == "adaptive"
end

local is_downlink, downlinks = one_of("dense", "compress")
local is_inter_node, inter_nodes = one_of("auto", "allreduce", "allgather", "ps", "sharded")
local is_fuse_small, fuse_smalls = one_of("auto", "dense", "compress")

--- Is v a communicator, or an object that stands for one?
local function is_comm(v)
  local ok, size = pcall(function() return type(v) == "table" and v.allreduce and v.size end) -- a tensor raises
  return ok and type(size) == "number"
end

-- An option without a test here is checked where it is used (seed).
local list = {
  option("comm", nil, is_comm, "a communicator, as atomo.mpi.world"),
  option("compress", "none", is_compress, "adaptive without options, or a compressor", bare_name),
  option("topology", nil, is_topology, topologies_text),
  option("overlap", true, is_boolean, "true or false"),
  option("min_size", 1024, function(v) return type(v) == "number" and v >= 0 end, "a number of elements >= 0"),
  option("seed", 0),
  option("downlink", "dense", is_downlink, downlinks),
  option("inter_node", "auto", is_inter_node, inter_nodes),
  option("fuse_small", "auto", is_fuse_small, fuse_smalls),
  option("message_buckets", nil, function(v) return type(v) == "number" and v % 1 == 0 and v >= 1 and v <= 64 end,
    "a whole number from 1 to 64"),
  option("check_after", nil, function(v) return type(v) == "number" and v % 1 == 0 and v >= 10 end,
    "a whole number of steps, 10 or more"),
  option("stall_warn", 60, is_seconds, "seconds, or 0 for never"),
  option("stall_abort", 600, is_seconds, "seconds, or 0 for never"),
  option("flight_prefix", "flight", function(v) return type(v) == "string" and v ~= "" end, "the beginning of a path"),
  option("checked", true, is_boolean, "true or false"),
}

local names, old_names, by_name = {}, {}, {nested = option("nested", false)} -- nested: inside another exchange
for i, o in ipairs(list) do names[i], by_name[o.name] = o.name, o end
for _, o in ipairs(list) do if o.was then old_names[o.was] = o.name end end

--- Returns the option whose present or old name is nearest to a word, nil if none is near.
local function near_name(word)
  local all = {unpack(names)}
  for old in pairs(old_names) do all[#all + 1] = old end
  table.sort(all)
  local near = suggest(word, all)
  return old_names[near] or near
end

local M = {list = list}

--- Returns a copy of the options with old names and values replaced. Raises for unknown options and wrong values.
---@param given table  the user's options, possibly with old names
---@return table opts
function M.current(given)
  local opts = renamed.options("exchange", given, list, raise)
  for key, value in pairs(opts) do
    local o = by_name[key]
    if not o then
      local near = near_name(brief(key))
      raise(("exchange: unknown option '%s'%s, options are %s"):format(brief(key),
        near and (", did you mean '%s'?"):format(near) or "", table.concat(names, ", ")))
    elseif o.is and not o.is(value) then
      raise(("exchange: %s is %s, expected %s"):format(key, brief(value), o.expected))
    end
  end
  return opts
end

--- Returns all options with their values or defaults as a table of settings, which also has opts as field `given`.
function M.read(opts)
  local settings = {given = opts}
  for name, o in pairs(by_name) do
    settings[name] = opts[name]
    if settings[name] == nil then settings[name] = o.standard end
  end
  return settings
end

return M
