--- Options that have a new name: the old one means the same for one version, and rank 0 says so once.
local M = {}

--- This process's rank as its launcher tells it, without starting MPI; 0 without a launcher.
function M.rank()
  return tonumber(os.getenv "OMPI_COMM_WORLD_RANK" or os.getenv "PMIX_RANK" or os.getenv "PMI_RANK") or 0
end

local said = {} -- old name -> true

--- Says on stderr what replaces an old name: one line, once a name, rank 0 only.
---@param who string  whose option it is
function M.notice(who, old, new)
  local text = ("%s: %s is deprecated, use %s\n"):format(who, old, new)
  if not said[text] and M.rank() == 0 then io.stderr:write(text) end
  said[text] = true
end

--- A copy of a table of options under their new names and values; raises where an option has both names. options: a
--- list of {name=, was=, was_value=}: the old name, and a function that gives the new value of an old one, or nil.
---@param who string
---@param given table
---@param options table[]
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
