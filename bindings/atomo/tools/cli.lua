--- Parses command lines of scripts by a declaration: checked values, --help, suggestions for misspelt options. Accepts
-- --batch 64, --batch=64, Torch's -batch 64, camelCase (-weightDecay is --weight-decay), --flag and --no-flag. An
-- option is {name, type, default, help, ...}: type int, number, string, flag, choice or list; fields: unit, min, max,
-- above (exclusive minimum), choices (a list), of (type of a list's items: int, number, string), repeated (collects a
-- list; the last positional argument may be, too), required, alias (a list of other names), was (the deprecated name:
-- its use prints a notice; the value's key, also in logs, is this name), was_value (old value -> new one), reads (the
-- value names a file of settings, for options that are not on the command line: a function of the value that returns
-- name -> value, and whether these are all settings of an earlier run; an earlier option's file comes first), per_run
-- (settings of an earlier run leave it out).
local elsewhere = require "atomo.tools.cli_elsewhere"
local launcher = require "atomo.core.launcher"
local renamed = require "atomo.core.renamed"
local shell_words = require "atomo.core.shell_words"
local suggest = require "atomo.core.suggest"
local shown_help = require "atomo.tools.cli_help"
local values = require "atomo.tools.cli_values"
local shown = shown_help.shown

local M = {suggest = suggest, help = shown_help.help}

-- ---- declarations ------------------------------------------------------------------------------------------------

--- weightDecay, weight_decay -> weight-decay
local function canonical(name)
  return (name:gsub("(%l)(%u)", "%1-%2"):gsub("_", "-"):lower())
end

local function key_of(o) return ((o.was or o[1]):gsub("-", "_")) end

--- Returns name -> option, and a list of names; raises for an invalid declaration (a bug of the script).
local function index_options(spec)
  local by_name, names = {}, {}
  for _, o in ipairs(spec.options or {}) do
    local kind = o[2]
    if type(o[1]) ~= "string" or not values.kinds[kind] then
      error(("cli: option %s has type %s, expected int, number, string, flag, choice or list"):format(
        tostring(o[1]), tostring(kind)), 0)
    end
    if kind == "choice" and type(o.choices) ~= "table" then error("cli: option " .. o[1] .. " lacks choices", 0) end
    local all = {o[1], o.was}
    for _, name in ipairs(o.alias or {}) do all[#all + 1] = name end
    for _, name in ipairs(all) do
      if by_name[canonical(name)] then error(("cli: option %s is declared twice"):format(name), 0) end
      by_name[canonical(name)] = o
    end
    names[#names + 1], names[#names + 2] = o[1], o.was
  end
  names[#names + 1] = "help"
  return by_name, names
end

-- ---- reading -----------------------------------------------------------------------------------------------------

local specs = setmetatable({}, {__mode = "k"}) -- result of parse -> declaration, names given, settings files

--- Splits an argument that begins with a dash: returns the option, the text after "=" (or nil), and false for --no-; or
--- nil and an error text.
local function split_option(who, argument, by_name, names)
  local name, text = argument:match "^%-%-?([^=]+)=(.*)$"
  name = name or argument:match "^%-%-?(.+)$"
  local wanted = canonical(name)
  local o = by_name[wanted]
  if o then
    if wanted == o.was then renamed.notice(who, "--" .. o.was, "--" .. o[1]) end
    return o, text, true
  end
  local positive = wanted:match "^no%-(.+)$"
  o = positive and by_name[positive]
  if o and o[2] == "flag" then return o, text, false end
  local near = suggest(wanted, names)
  near = near and by_name[near] and by_name[near][1] or near -- suggest the present name, not the old one
  return nil, ("unknown option %s%s"):format(argument:match "^[^=]+", near and ", did you mean --" .. near .. "?"
    or "; --help lists them")
end

--- Returns the value of option o, from the text after "=" or the next argument, and the index of the last argument
--- used; or nil, nil and an error text.
local function read_value(who, o, text, positive, args, i)
  if o[2] == "flag" and not text then return positive, i end
  if not positive then return nil, nil, ("--no-%s takes no value, found '%s'"):format(o[1], text) end
  if not text then
    local next_one = args[i + 1]
    local missing = next_one == nil or (next_one:match "^%-." and not tonumber(next_one))
    if missing then
      return nil, nil, ("--%s wants a value%s, found %s"):format(
        o[1], o.unit and " (" .. o.unit .. ")" or "", next_one and "'" .. next_one .. "'" or "the end of the line")
    end
    text, i = next_one, i + 1
  end
  local current = o.was_value and o.was_value[text]
  if current then
    renamed.notice(who, ("--%s %s"):format(o[1], text), ("--%s %s"):format(o[1], current))
    text = current
  end
  local v, expected = values.from_text(o, text)
  if v == nil then return nil, nil, ("--%s is '%s', expected %s"):format(o[1], text, expected) end
  return v, i
end

local function store(opts, given, o, v)
  local key = key_of(o)
  if o.repeated then
    if not given[key] then opts[key] = {} end
    for _, each in ipairs(type(v) == "table" and v or {v}) do table.insert(opts[key], each) end
  elseif given[key] then
    return ("--%s%s is given twice, expected one value"):format(o[1], o.was and (" (once --%s)"):format(o.was) or "")
  else
    opts[key] = v
  end
  given[key] = true
end

local function is_default(o, v)
  return v == o[3] or type(v) == "table" and shown(v) == shown(o[3] or {})
end

--- Stores one value of a settings file unless the option has a value. Returns an error text, without the file's name.
local function store_setting(context, name, value, of_run)
  local o = context.by_name[canonical(name)]
  if not o then
    local near = suggest(canonical(name), context.names)
    if of_run then return ("the run has a setting %s, which %s does not have"):format(name, context.who) end
    return ("unknown option %s%s"):format(name, near and near ~= "help" and (", did you mean %s?"):format(near) or "")
  end
  if o.reads or of_run and o.per_run then
    return not of_run and o.reads and ("%s is only for the command line"):format(name) or nil
  end
  local key = key_of(o)
  if context.taken[key] ~= nil then return ("--%s is given twice, expected one value"):format(o[1]) end
  if context.given[key] then return nil end
  if not of_run and canonical(name) == o.was then renamed.notice(context.who, name, o[1]) end
  local v, expected = values.from_value(o, o.was_value and o.was_value[value] or value)
  if v == nil then return ("%s is '%s', expected %s"):format(name, shown(value), expected) end
  context.opts[key] = v
  context.taken[key] = not (of_run and is_default(o, v)) -- a run's settings include those that were not given
end

--- Reads the files that options with `reads` name. Returns an error text, or nil and the list of files.
local function read_sources(spec, context)
  local sources = {}
  for _, o in ipairs(spec.options or {}) do
    local path = o.reads and context.opts[key_of(o)]
    if path then
      context.opts[key_of(o)] = nil -- the settings that it has are in effect, and are shown
      local ok, found, of_run = pcall(o.reads, path)
      if not ok then return ("--%s: %s"):format(o[1], found) end
      local list = {}
      for name in pairs(found) do list[#list + 1] = tostring(name) end
      table.sort(list)
      context.taken = {}
      for _, name in ipairs(list) do
        local problem = store_setting(context, name, found[name], of_run)
        if problem then return ("%s: %s"):format(path, problem) end
      end
      for key, is_given in pairs(context.taken) do context.given[key] = is_given end
      sources[#sources + 1] = path
    end
  end
  return nil, sources
end

local function read_positional(spec, found, opts)
  local wanted = spec.positional or {}
  local last = wanted[#wanted]
  if #found > #wanted and not (last and last.repeated) then
    return ("unexpected argument '%s'%s"):format(found[#wanted + 1], #wanted == 0 and "; options begin with --" or "")
  end
  for i, p in ipairs(wanted) do
    if found[i] == nil and p.required then return ("%s is missing: %s"):format(p[1], p[4] or "") end
    opts[key_of(p)] = p.repeated and {} or p[3]
  end
  for i, text in ipairs(found) do
    local p = wanted[math.min(i, #wanted)]
    local v, expected = values.from_text(p, text)
    if v == nil then return ("%s is '%s', expected %s"):format(p[1], text, expected) end
    if p.repeated then table.insert(opts[key_of(p)], v) else opts[key_of(p)] = v end
  end
end

--- Parses args; returns the values, or nil, a text and an exit code (0 for --help, 2 for an error).
---@param spec table
---@param args string[]
function M.read(spec, args)
  local by_name, names = index_options(spec)
  local opts, given, found = {}, {}, {}
  for _, o in ipairs(spec.options or {}) do
    opts[key_of(o)] = o[3]
    if o.repeated and o[3] == nil then opts[key_of(o)] = {} end
  end
  local i, only_positional, who = 1, false, spec.name or "atomo-lua"
  args = elsewhere.translated(who, args, by_name, canonical)
  while i <= #args do
    local a = args[i]
    if only_positional or not a:match "^%-." or (tonumber(a) and not by_name[a:sub(2)]) then
      found[#found + 1] = a
    elseif a == "--" then
      only_positional = true
    elseif a == "--help" or a == "-help" or a == "-h" then
      return nil, M.help(spec), 0
    else
      local o, text, positive = split_option(who, a, by_name, names)
      if not o then return nil, text, 2 end
      local v, last, problem = read_value(who, o, text, positive, args, i)
      problem = problem or store(opts, given, o, v)
      if problem then return nil, problem, 2 end
      i = last
    end
    i = i + 1
  end
  local why, sources = read_sources(spec, {who = who, by_name = by_name, names = names, opts = opts, given = given})
  if why then return nil, why, 2 end
  for _, o in ipairs(spec.options or {}) do
    if o.required and not given[key_of(o)] then return nil, ("--%s is missing: %s"):format(o[1], o[4] or ""), 2 end
  end
  local problem = read_positional(spec, found, opts)
  if problem then return nil, problem, 2 end
  specs[opts] = {spec = spec, given = given, sources = sources}
  return opts
end

--- Waits for the end of this process: rank 0, which has the same error, has printed it and exits, so mpirun ends the
--- job. Returns after some seconds if rank 0 has no error: a file of settings may differ between hosts.
local function wait_for_rank0()
  local ffi = require "ffi"
  pcall(ffi.cdef, [[int usleep(unsigned int);
    void (*atomo_cli_signal(int, void (*)(int)))(int) __asm__("signal");]])
  ffi.C.atomo_cli_signal(15, nil) -- SIGTERM, by which mpirun ends the job: ends this process without a last word
  for _ = 1, 6 do ffi.C.usleep(500000) end
end

--- Returns the values of the script's options, with underscores in their keys (opts.weight_decay). --help prints a text
--- and exits with code 0; an error prints a message on stderr (rank 0's, if it has one) and exits with code 2.
---@param spec table     {name=, about=, examples={...}, options={...}, positional={...}}
---@param args string[]? default: the script's arguments
---@return table<string, any>
---@usage atomo.cli.parse({name = "s", options = {{"lr", "number", 0.1, "learning rate"}}}, {"--lr", "0.5"}).lr -->
---@usage 0.5
function M.parse(spec, args)
  local opts, text, code = M.read(spec, args or arg or {})
  if opts then return opts end
  if launcher.rank() == 0 then
    if code == 0 then
      require("atomo.core.files").say(text)
    else
      io.stderr:write(("%s: %s\n"):format(spec.name or "atomo-lua", text))
    end
  elseif code ~= 0 then
    wait_for_rank0()
    io.stderr:write(("%s: rank %d: %s\n"):format(spec.name or "atomo-lua", launcher.rank(), text))
  end
  os.exit(code)
end

-- ---- showing -----------------------------------------------------------------------------------------------------

--- Was the option given on the command line?
---@param opts table a result of parse
---@param name string
---@return boolean
---@usage atomo.cli.given(opts, "batch") --> true
function M.given(opts, name)
  return specs[opts] ~= nil and specs[opts].given[(name:gsub("-", "_"))] == true
end

--- Returns all settings in effect as a command line, in lines of at most 100 columns.
---@return string
---@param opts table a result of parse
---@usage atomo.cli.echo(opts) --> settings: --batch 64
function M.echo(opts)
  local entry = specs[opts] or error("cli.echo: these are no options of cli.parse", 2)
  local parts = {}
  for _, o in ipairs(entry.spec.options or {}) do
    local v = opts[key_of(o)]
    if o[2] == "flag" then
      parts[#parts + 1] = v and "--" .. o[1] or "--no-" .. o[1]
    elseif v ~= nil and v ~= "" and not (o.repeated and #v == 0) then
      parts[#parts + 1] = ("--%s %s"):format(o[1], shell_words.word(shown(v)))
    end
  end
  local text = shown_help.settings_text(parts)
  if not entry.sources[1] then return text end
  return text .. "\nsettings from: the command line, else " .. table.concat(entry.sources, ", else ")
end

return M
