--- Reads a compressor's text, "svd:ratio=16,bits=8,fold=paper", or table, {name = "svd", ratio = 16, ...}, and checks
-- it against the option tables of the codecs in C. No compressor's name is known here.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local suggest = require "atomo.core.suggest"
local overrides = require "atomo.compress.overrides"
local ffi, C, raise = f.ffi, f.C, f.raise

local M = {}

local kinds = {[C.ATOMO_OPTION_FLOAT] = "float", [C.ATOMO_OPTION_INT] = "int", [C.ATOMO_OPTION_BOOL] = "bool",
  [C.ATOMO_OPTION_ENUM] = "enum"}

local function text_of(pointer) return pointer ~= nil and ffi.string(pointer) or nil end

local function read_options(i, count)
  local list, o = {}, ffi.new "atomo_option_info"
  for j = 0, count - 1 do
    f.check(C.atomo_codec_option(i, j, o))
    local option = {key = text_of(o.key), kind = kinds[o.type], standard = o.standard, min = o.min, max = o.max,
      help = text_of(o.help), index = j}
    local choices = text_of(o.choices)
    if choices then
      option.choices = {}
      for word in choices:gmatch "[^|]+" do option.choices[#option.choices + 1] = word end
    end
    list[#list + 1], list[option.key] = option, option
  end
  return list
end

local known
--- Returns all compressors, {{name=, summary=, source=, unbiased=, options={...}}, ...}; also indexed by name.
function M.known()
  if known then return known end
  known = {}
  local about = ffi.new "atomo_codec_info"
  for i = 0, C.atomo_codec_count() - 1 do
    f.check(C.atomo_codec_about(i, about))
    local entry = {name = ffi.string(about.name), summary = ffi.string(about.summary),
      source = ffi.string(about.source), unbiased = about.unbiased ~= 0,
      linear = about.linear ~= 0, options = read_options(i, about.options), number = i}
    if entry.name:sub(1, 1) ~= "_" then known[#known + 1] = entry end -- _list is only used by scripted compressors
    known[entry.name] = entry
  end
  return known
end

--- Adds a scripted compressor: an entry in the form of known(), with make(text, values, key). It replaces a scripted
--- one of the same name; raises if a built-in one has that name.
function M.register(entry)
  local list = M.known()
  local old = list[entry.name]
  if old and not old.make then
    raise(("%s: there is a built-in compressor of that name"):format(entry.name))
  end
  for i, other in ipairs(list) do if other == old then table.remove(list, i) break end end
  list[#list + 1], list[entry.name] = entry, entry
end

--- Returns ", did you mean 'rank'?" if one of names is similar to word, else "".
function M.suggest(word, names)
  local near = suggest(word, names)
  return near and (", did you mean '%s'?"):format(near) or ""
end

local function names_of(list, key)
  local names = {}
  for _, entry in ipairs(list) do names[#names + 1] = entry[key] end
  return names
end

--- Converts an option's value to the number that C expects; raises if it is not valid.
local function convert(name, option, value)
  local what = ("%s: %s is %s, expected "):format(name, option.key, type(value) == "string" and ("'%s'"):format(value)
    or brief(value))
  if option.kind == "enum" then
    for i, choice in ipairs(option.choices) do if choice == value then return i - 1 end end
    raise(what .. table.concat(option.choices, " or ") ..
      (type(value) == "string" and M.suggest(value, option.choices) or ""))
  elseif option.kind == "bool" then
    if value == true or value == "true" or value == "1" then return 1 end
    if value == false or value == "false" or value == "0" then return 0 end
    raise(what .. "true or false")
  end
  local number = tonumber(value)
  if type(value) ~= "number" and type(value) ~= "string" then number = nil end
  if option.choices then
    for _, choice in ipairs(option.choices) do if tonumber(choice) == number then return number end end
    raise(what .. table.concat(option.choices, ", "))
  end
  if not number or not (number >= option.min and number <= option.max) or
    (option.kind == "int" and number % 1 ~= 0) then
    local kind = option.kind == "int" and "an integer" or "a number"
    raise(("%s%s of %g to %g"):format(what, kind, option.min, option.max))
  end
  return number
end

--- Parses "name:key=value,key=value;pattern=override" to {name=, key=value, ..., overrides=}.
local function parse_text(text)
  local pieces
  text, pieces = text:match "^([^;]*);?(.*)$"
  local name, rest = text:match "^%s*([%w_%-]+)%s*:?(.*)$"
  if not name then raise(("compressor: '%s', expected name or name:key=value,key=value"):format(text)) end
  local spec = {name = name}
  for item in rest:gmatch "[^,]+" do
    local key, value = item:match "^%s*([%w_]+)%s*=%s*(.-)%s*$"
    if not key then
      key, value = item:match "^%s*([%w_]+)%s*$", "true"
      if not key then raise(("%s: cannot read '%s', expected key=value"):format(name, item)) end
    end
    if spec[key] ~= nil then raise(("%s: option '%s' is given twice, expected one value"):format(name, key)) end
    spec[key] = value
  end
  if pieces ~= "" then spec.overrides = overrides.parse(pieces) end
  return spec
end

local budgets = {"atoms", "ratio", "bytes", "budget"}
local presets = {}

--- Gives a compressor's table a name, for --load and --compress: atomo.preset("decay", {name = "svd", budget =
--- function(step, epoch, stats) ... end}). "decay:bits=4" changes an option, "decay:ratio=8" the budget.
---@param name string
---@param spec table
---@usage atomo.preset("gentle_ref", {name = "svd", ratio = 8}) atomo.compressor "gentle_ref:bits=4"
function M.preset(name, spec)
  if type(name) ~= "string" or not name:match "^%a[%w_%-]*$" then
    raise(("preset: name is %s, expected letters, digits, _ and -"):format(brief(name)))
  elseif M.known()[name] then
    raise(("preset: there is a compressor called %s"):format(name))
  elseif type(spec) ~= "table" then
    raise(("preset: %s is a %s, expected a compressor's table"):format(name, type(spec)))
  end
  M.read(spec)
  presets[name] = spec
end

--- Returns spec; if its name is a preset's, the preset's table with spec's options set.
local function expand(spec)
  local preset = presets[spec.name]
  if not preset then return spec end
  local full, other = {}, false
  for _, key in ipairs(budgets) do other = other or spec[key] ~= nil end
  for key, value in pairs(preset) do full[key] = value end
  for _, key in ipairs(budgets) do if other then full[key] = nil end end
  for key, value in pairs(spec) do if key ~= "name" then full[key] = value end end
  return full
end

--- Returns spec.budget; raises unless it is a function and the compressor has a budget option.
local function check_schedule(entry, spec)
  local fn = spec.budget
  if fn == nil then return end
  if not (entry.options.atoms and entry.options.ratio) then
    raise(("%s: budget: it takes no budget"):format(entry.name))
  elseif type(fn) ~= "function" then
    raise(("%s: budget is %s, expected function(step, epoch, stats) that returns a ratio, or {ratio=}, {bytes=}, " ..
      "{atoms=}"):format(entry.name, brief(fn)))
  elseif spec.atoms ~= nil or spec.ratio ~= nil or spec.bytes ~= nil then
    raise(("%s: give one of budget, atoms, ratio and bytes"):format(entry.name))
  end
  return fn
end

--- Reads a text or table. Returns the compressor's entry, its option values (1-based, NaN if not given), the function
--- given as fold, and {budget = the schedule, overrides = the checked list}.
function M.read(spec)
  if type(spec) == "string" then
    spec = parse_text(spec)
  elseif type(spec) ~= "table" then
    raise(("compressor: spec is %s, expected a string such as \"svd:ratio=16\", or a table"):format(
      spec == nil and "missing" or "a " .. type(spec)))
  end
  spec = expand(spec)
  local list = M.known()
  local entry = type(spec.name) == "string" and spec.name:sub(1, 1) ~= "_" and list[spec.name]
  if not entry then
    local name, names = brief(spec.name), names_of(list, "name")
    raise(("compressor: unknown compressor '%s'%s; compressors are %s"):format(name, M.suggest(name, names),
      table.concat(names, ", ")))
  end
  local values, fold = {}, nil
  for i = 1, #entry.options do values[i] = 0 / 0 end
  for key, value in pairs(spec) do
    local option = entry.options[key]
    if option and key == "fold" and type(value) == "function" then
      fold = value
    elseif option then
      values[option.index + 1] = convert(entry.name, option, value)
    elseif key ~= "name" and key ~= "budget" and key ~= "overrides" then
      local names = names_of(entry.options, "key")
      raise(("%s: unknown option '%s'%s; %s"):format(entry.name, brief(key), M.suggest(brief(key), names),
        #names > 0 and "options are " .. table.concat(names, ", ") or "it takes none"))
    end
  end
  return entry, values, fold, {budget = check_schedule(entry, spec),
    overrides = spec.overrides and overrides.read(spec.overrides, entry, spec, M.read, M.text)}
end

--- Returns the options "bytes" and "ratio" of a budget in bytes as given, the ratio 16 by default; nothing if the
--- compressor has no such budget.
local function budget_of(entry, values)
  local options = entry.options
  local function given(key)
    local v = options[key] and values[options[key].index + 1]
    return v == v and v or nil
  end
  if given "bytes" then return given "bytes" end
  if options.ratio and not (given "atoms" or given "k") then return nil, given "ratio" or 16 end
end

--- Multiplies the budget in option values by `share` if it is in bytes or a ratio. Budgets in atoms or entries are not
--- changed.
function M.cut_budget(entry, values, share)
  local options, bytes, ratio = entry.options, budget_of(entry, values)
  if bytes then
    values[options.bytes.index + 1] = math.max(options.bytes.min, bytes * share)
  elseif ratio then
    values[options.ratio.index + 1] = math.max(options.ratio.min, ratio / share)
  end
end

--- Returns a function that returns the budget of a step of `dense` bytes, in bytes; nil if the compressor has none.
function M.step_budget(entry, values)
  local bytes, ratio = budget_of(entry, values)
  return (bytes or ratio) and function(dense) return bytes or dense / ratio end or nil
end

--- Sets option `key` if the compressor has it and it was not given.
function M.put_default(entry, values, key, value)
  local option = entry.options[key]
  local at = option and option.index + 1
  if option and values[at] ~= values[at] then values[at] = convert(entry.name, option, value) end
end

--- Returns a compressor's canonical text: options that differ from their defaults, in the order of its option table.
function M.text(entry, values, fold, more)
  local parts = {}
  if more and more.budget then parts[1] = "budget=function" end
  for i, option in ipairs(entry.options) do
    local v = values[i]
    if option.key == "fold" and fold then
      parts[#parts + 1] = "fold=function"
    elseif v == v and v ~= option.standard then
      if option.kind == "enum" then v = option.choices[v + 1]
      elseif option.kind == "bool" then v = tostring(v ~= 0)
      else v = ("%.14g"):format(v) end
      parts[#parts + 1] = option.key .. "=" .. v
    end
  end
  return entry.name .. (#parts > 0 and ":" .. table.concat(parts, ",") or "") ..
    overrides.text(more and more.overrides)
end

return M
