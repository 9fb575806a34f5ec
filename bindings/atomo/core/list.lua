--- The length of a list that a script passes. Lua's # of {a, nil, b} is 1 or 3, so a variable that is nil (a misspelt
--- name, a layer without bias) would end the list early, without a word.
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"

--- Returns the number of entries; raises "WHAT: entry 2 is nil" for a gap, and for a table that has names only.
---@param t table
---@param what string
---@return integer
return function(t, what)
  if type(t) ~= "table" then raise(("%s: got a %s, expected a list"):format(what, type(t))) end
  local n = table.maxn(t)
  for i = 1, n do
    if t[i] == nil then raise(("%s: entry %d is nil, but entry %g is there"):format(what, i, n)) end
  end
  if n == 0 then
    local key = next(t)
    if key ~= nil then raise(("%s: got a table with the key '%s', expected a list"):format(what, brief(key))) end
  end
  return n
end
