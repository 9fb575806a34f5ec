--- Overrides (stage 4): tensors whose names match a Lua pattern are encoded differently, under the same budget of the
-- step. {name = "svd", ratio = 64, overrides = {{"^fc", "none"}, {"conv1", {bits = 8}}}}, or as text
-- "svd:ratio=64;^fc=none;conv1=bits=8". The first pattern that matches decides.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local raise = f.raise

local M = {}

local shared = {atoms = true, ratio = true, bytes = true, sampling = true, ef = true, budget = true, overrides = true}

--- Parses an override's text: "bits=8,fold=paper" gives a table of options; any other text, a compressor, is returned.
local function of_text(text)
  if not text:match "^%s*[%w_]+%s*=" then return text end
  local options = {}
  for item in text:gmatch "[^,]+" do
    local key, value = item:match "^%s*([%w_]+)%s*=%s*(.-)%s*$"
    if not key then raise(("overrides: cannot read '%s' in '%s', expected key=value"):format(item, text)) end
    options[key] = value
  end
  return options
end

--- Parses the pieces "pattern=override", separated by ";", of a compressor's text.
function M.parse(pieces)
  local list = {}
  for piece in pieces:gmatch "[^;]+" do
    local pattern, what = piece:match "^%s*([^=]-)%s*=%s*(.-)%s*$"
    if not pattern or pattern == "" or what == "" then
      raise(("overrides: cannot read '%s', expected pattern=none, pattern=name:key=value or pattern=key=value")
        :format(piece))
    end
    list[#list + 1] = {pattern, what}
  end
  return list
end

local function check_pattern(pattern, i)
  local what = ("overrides: pattern %d is "):format(i)
  if type(pattern) ~= "string" then raise(what .. brief(pattern) .. ", expected a Lua pattern of names") end
  local ok, problem = pcall(string.find, "", pattern)
  if not ok then raise(("%s'%s': %s"):format(what, pattern, brief(problem):gsub("^.-:%d+: ", ""))) end
end

--- Checks one override; returns {pattern=, atoms= (or "none"), values=, text=}. base, spec: the compressor's entry and
--- table.
local function read_one(item, i, base, spec, read, text_of)
  if type(item) ~= "table" or #item ~= 2 then
    raise(("overrides: number %d is %s, expected {pattern, override}"):format(i,
      type(item) == "table" and ("a table of %d"):format(#item) or brief(item)))
  end
  local pattern, what = item[1], item[2]
  check_pattern(pattern, i)
  if type(what) == "string" then what = of_text(what) end
  if what == "none" then return {pattern = pattern, atoms = "none", text = "none"} end
  if type(what) == "table" then
    local merged = {}
    if what.name == nil or what.name == base.name then
      for key, value in pairs(spec) do if not shared[key] then merged[key] = value end end
    end
    for key, value in pairs(what) do merged[key] = value end
    what = merged
  elseif type(what) ~= "string" then
    raise(("overrides: for '%s' there is %s, expected \"none\", a compressor, or options"):format(pattern,
      brief(what)))
  end
  local entry, values, fold = read(what)
  if fold then raise(("overrides: for '%s': fold cannot be a function here"):format(pattern)) end
  if not (entry.options.atoms and entry.options.ratio) or entry.make then
    raise(("overrides: for '%s': '%s' is neither a set of atoms (entry, svd, fourier, ...) nor none"):format(pattern,
      entry.name))
  end
  for j, option in ipairs(entry.options) do
    if shared[option.key] and values[j] == values[j] then
      raise(("overrides: for '%s': %s is the whole compressor's, not one tensor's"):format(pattern, option.key))
    end
  end
  return {pattern = pattern, atoms = entry.name, values = values, text = text_of(entry, values)}
end

--- Checks a list of overrides.
function M.read(list, base, spec, read, text_of)
  if type(list) ~= "table" then
    raise(("overrides: %s, expected a list of {pattern, override}"):format(brief(list)))
  end
  if not (base.options.atoms and base.options.ratio) or base.make then
    raise(("%s: overrides: only built-in sets of atoms (entry, svd, auto, ...) share a budget with others"):format(
      base.name))
  end
  local checked = {}
  for i, item in ipairs(list) do checked[i] = read_one(item, i, base, spec, read, text_of) end
  return #checked > 0 and checked or nil
end

--- Returns the override for a tensor called `name`, or nil.
function M.find(list, name)
  for _, o in ipairs(name and list or {}) do
    if name:find(o.pattern) then return o end
  end
end

--- Returns ";pattern=text" for each override, the end of the compressor's canonical text.
function M.text(list)
  local parts = {}
  for _, o in ipairs(list or {}) do parts[#parts + 1] = (";%s=%s"):format(o.pattern, o.text) end
  return table.concat(parts)
end

return M
