--- The Lua part of the prompt (runtime/host/repl.c): the globals atomo, help and time, and printing of values.
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
  print(("%s a call (median of %d, least %s)"):format(seconds_text(times[math.ceil(#times / 2)]), #times,
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

return M
