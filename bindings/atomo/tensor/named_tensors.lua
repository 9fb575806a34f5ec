--- Shared by the readers of files with named tensors (safetensors, npz): option `only`, and entries that cannot become
-- a tensor here.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"

local M = {}

--- Raises an error about a file. who: the format, first word of the text ("npz").
function M.refuse(who, path, text, ...) f.raise(("%s: %s: " .. text):format(who, path, ...)) end
local refuse = M.refuse

--- Raises unless opts are nil or options: only, and those of `rules` (check_options.lua).
local function check_options(who, opts, rules)
  if opts ~= nil and type(opts) ~= "table" then
    f.raise(("%s: options are a %s, expected a table"):format(who, type(opts)))
  end
  for key, value in pairs(opts or {}) do
    if key ~= "only" then
      local rule = rules and rules[key]
      if not rule then
        f.raise(("%s: unknown option '%s', expected only%s"):format(who, brief(key),
          rules and " or " .. next(rules) or ""))
      end
      local expected = rule(value)
      if expected then f.raise(("%s: %s is %s, expected %s"):format(who, key, number.text(value), expected)) end
    end
  end
end

--- Returns opts.only as a set of names, nil for all. Raises for a name that the file does not have.
local function wanted(who, path, entries, opts)
  local only = opts and opts.only
  if only == nil then return nil end
  if type(only) == "string" then only = {only} end
  if type(only) ~= "table" then f.raise(("%s: only is a %s, expected a list of names"):format(who, type(only))) end
  local known, set = {}, {}
  for _, e in ipairs(entries) do known[e.name] = true end
  for _, name in ipairs(only) do
    if not known[name] then refuse(who, path, "it has no tensor '%s'", brief(name)) end
    set[name] = true
  end
  return set
end

--- Reads the wanted entries. read(entry) returns a tensor, or nil and the reason why it cannot be one. Such an entry is
--- listed in `unread`; indexing `tensors` with its name raises the reason. Raises if opts.only names one, or if no
--- entry of the file can be read.
---@param who string
---@param path string
---@param entries {name: string}[]
---@param opts {only: string[]|string}?
---@param read fun(entry: table): atomo.Tensor?, string?
---@param rules table<string, fun(value: any): string?>?  the format's other option, and its rule
---@return table<string, atomo.Tensor> tensors
---@return table<string, string> unread  name -> reason
function M.read(who, path, entries, opts, read, rules)
  check_options(who, opts, rules)
  local only = wanted(who, path, entries, opts)
  return T.outside_scope(function()
    local tensors, unread = {}, {}
    for _, e in ipairs(entries) do
      if not only or only[e.name] then
        local t, why = read(e)
        if why and only then refuse(who, path, "'%s' %s", e.name, why) end
        tensors[e.name], unread[e.name] = t, why
      end
    end
    local name, why = next(unread)
    if name and next(tensors) == nil then refuse(who, path, "'%s' %s", name, why) end
    setmetatable(tensors, {__index = function(_, key)
      if unread[key] then refuse(who, path, "'%s' %s", key, unread[key]) end
    end})
    return tensors, unread
  end)
end

return M
