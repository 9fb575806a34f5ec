--- The Lua part of the prompt (runtime/host/repl.c): the globals atomo, help and time, printing of values, completion
-- of names, and under mpirun what ranks tell each other.
local M = {}

local LEAST_SECONDS, MOST_CALLS = 0.2, 10000 -- of time(f)

local function seconds_text(s)
  if s >= 1 then return ("%.3g s"):format(s) end
  if s >= 1e-3 then return ("%.3g ms"):format(s * 1e3) end
  return ("%.3g us"):format(s * 1e6)
end

--- Calls f(...) until 0.2 s have passed, and prints the median and the least time of a call. Tensors that a call makes
--- are freed after it.
local function time(f, ...)
  if type(f) ~= "function" and not (debug.getmetatable(f) or {}).__call then
    error(("time: the argument is a %s, expected a function: time(function() ... end)"):format(type(f)), 2)
  end
  local clock, scope = require("atomo.ffi").C.atomo_time, require("atomo.tensor").scope
  local arguments, n = {...}, select("#", ...)
  local function call() f(unpack(arguments, 1, n)) end
  local times, from = {}, clock()
  repeat
    local start = clock()
    scope(call)
    times[#times + 1] = clock() - start
  until clock() - from > LEAST_SECONDS or #times == MOST_CALLS
  table.sort(times)
  print(("%s a call (median of %d, least %s)"):format(seconds_text(require "atomo.core.median"(times)), #times,
    seconds_text(times[1])))
end

local function help(...) print(require "atomo.host.help"(select("#", ...), (...))) end

--- Defines the globals that a script has not defined. atomo: the module, or nil if it cannot be loaded.
function M.begin(atomo)
  for name, value in pairs {atomo = atomo, help = help, time = time} do
    if rawget(_G, name) == nil then rawset(_G, name, value) end
  end
end

--- Prints the values of a line.
function M.show(...)
  local show, parts = require "atomo.host.show", {...}
  for i = 1, select("#", ...) do parts[i] = show(parts[i]) end
  print(table.concat(parts, "\t"))
end

-- ---- completion --------------------------------------------------------------------------------------------------

--- Returns the value of a path "a.b.c" of names from the globals; nil if there is none.
local function value_of(path)
  local value = _G
  for name in path:gmatch "[^.:]+" do
    local ok, field = pcall(function() return value[name] end)
    if not ok or field == nil then return nil end
    value = field
  end
  return value
end

local KEYWORDS = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then true " ..
  "until while"):gmatch "%S+" do
  KEYWORDS[word] = true
end

--- Returns the part that all texts of a sorted list begin with.
local function common(list)
  local first, last, n = list[1], list[#list], 0
  while n < #first and first:byte(n + 1) == last:byte(n + 1) do n = n + 1 end
  return first:sub(1, n)
end

--- Returns what Tab offers for a word such as "atomo.nn.Li" or "t:su": the part that all have in common, then the
--- names, sorted; an empty list if there are none. After a colon only functions are offered.
---@param word string
---@return string[]
function M.complete(word)
  local path, separator, start = word:match "^(.-)([.:]?)([%w_]*)$"
  local holder = _G
  if separator ~= "" then holder = value_of(path) elseif path ~= "" then return {} end
  if holder == nil then return {} end
  local list = {}
  local fields = require "atomo.host.fields"(holder)
  if separator == "" then
    for name in pairs(KEYWORDS) do fields[name] = true end
  end
  for name, value in pairs(fields) do
    local fits = name:sub(1, #start) == start and (separator ~= ":" or type(value) == "function")
    if fits and name:find "^[%a_][%w_]*$" then list[#list + 1] = path .. separator .. name end
  end
  table.sort(list)
  if #list > 1 then table.insert(list, 1, common(list)) end
  return list
end

-- ---- several ranks -----------------------------------------------------------------------------------------------

local NAP = 10000 -- microseconds between two looks whether rank 0 has read a statement

--- Returns on every rank the statement that rank 0 has read; nil at the end of its input. The others look for it from
--- time to time: no watchdog minds how long somebody types. [collective]
---@param text string?  on rank 0
---@return string?
function M.share(text)
  local world, f = require("atomo.comm.mpi").world, require "atomo.ffi"
  pcall(f.ffi.cdef, "int usleep(unsigned int)")
  local arrived = world:ibarrier()
  while not arrived:test() do f.C.usleep(NAP) end
  local sent = world:allgatherv(world.rank == 0 and (text and "1" .. text or "0") or "")[1]
  return sent:match "^1(.*)$"
end

--- Returns a traceback without lines that have nothing but an address, which differs from rank to rank.
local function without_addresses(text) return (text:gsub("\n\t%[[^\n]*%]: at 0x%x+", "")) end

--- Prints the errors of all ranks, each text once, on rank 0. [collective]
---@param problem string?  this rank's error
function M.report(problem)
  local world = require("atomo.comm.mpi").world
  local texts, ranks, order = world:allgatherv(without_addresses(problem or "")), {}, {}
  if world.rank ~= 0 then return end
  for r, text in ipairs(texts) do
    if text ~= "" and not ranks[text] then order[#order + 1], ranks[text] = text, {} end
    if text ~= "" then table.insert(ranks[text], r - 1) end
  end
  io.stdout:flush()
  for _, text in ipairs(order) do
    local who = #ranks[text] == world.size and "" or
      ("[rank%s %s] "):format(#ranks[text] > 1 and "s" or "", table.concat(ranks[text], ", "))
    io.stderr:write(who .. text .. "\n") -- one write, which mpirun passes on whole
  end
end

return M
