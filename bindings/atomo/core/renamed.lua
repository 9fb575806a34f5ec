--- Renamed options: the old name works for one more version, and rank 0 prints one notice for it.
local launcher = require "atomo.core.launcher"
local M = {}

--- Options of atomo.exchange, and of scripts (there "inter-node"), with old names or values: present name -> {was= the
--- old name} or {values= {old value = new value}}.
M.exchange = {
  compress = {values = {auto = "adaptive"}},
  topology = {values = {standard = "default"}},
  downlink = {was = "down"},
  inter_node = {was = "inner"},
  fuse_small = {was = "small"},
  flight_prefix = {was = "flight"},
}

local said = {} -- old name -> true

--- Prints on stderr what replaces an old name: one line, once per name, on rank 0 only.
---@param who string  function or script that has the option, for the notice
function M.notice(who, old, new)
  local text = ("%s: %s is deprecated, use %s\n"):format(who, old, new)
  if not said[text] and launcher.rank() == 0 then io.stderr:write(text) end
  said[text] = true
end

--- Returns a copy of `given` with old names and values replaced; raises if an option is given under both names.
---@param who string
---@param given table
---@param options table[]  {name=, was=, was_value=}: was: the old name; was_value(v): the new value of v, or nil
---@param raise fun(text: string)
function M.options(who, given, options, raise)
  local current = {}
  for key, value in pairs(given) do current[key] = value end
  for _, o in ipairs(options) do
    if o.was and given[o.was] ~= nil then
      if given[o.name] ~= nil then
        raise(("%s: %s and %s are one option, give %s alone"):format(who, o.name, o.was, o.name))
      end
      M.notice(who, o.was, o.name)
      current[o.name], current[o.was] = given[o.was], nil
    end
    local value = current[o.name]
    local new = o.was_value and value ~= nil and o.was_value(value)
    if new then
      local old = type(value) == "table" and value.name or value
      M.notice(who, ("%s = %s"):format(o.name, old), ("%s = %s"):format(o.name, new))
      current[o.name] = new
    end
  end
  return current
end

return M
