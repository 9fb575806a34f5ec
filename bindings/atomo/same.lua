--- Do all ranks run the same thing? Settings, scripts and libraries are compared over the ranks before anything depends
-- on them; what differs is named, with both values (stage 7 of the path; DESIGN 6.1).
local f = require "atomo.ffi"
local version = require "atomo.version"
local C = f.C

local M = {}

local function text_of(v)
  if type(v) == "number" then return ("%.17g"):format(v) end
  if type(v) ~= "table" then return tostring(v) end
  local parts = {}
  for i, each in ipairs(v) do parts[i] = text_of(each) end
  return table.concat(parts, " ")
end

--- Raises on every rank, naming the first that differs, unless all ranks bring the same items {{name, value}, ...}
--- (numbers, strings, booleans, lists of them; nil counts). One small message a rank where they agree. [collective]
---@param comm table
---@param what string  whose items they are: "train"
---@param items table[]
function M.check(comm, what, items)
  local names, lines = {}, {}
  for i, item in ipairs(items) do
    names[i] = tostring(item[1])
    lines[i] = names[i] .. "=" .. text_of(item[2])
  end
  if pcall(comm.check, comm, what .. ": settings", table.concat(lines, "\n")) then return end
  comm:check(what .. ": names of settings", table.concat(names, ", "))
  for i, item in ipairs(items) do comm:check(("%s: %s"):format(what, names[i]), text_of(item[2])) end
  comm:check(what .. ": settings", table.concat(lines, "\n")) -- a failure of another kind raises again
end

--- Name and checksum of the script that runs; "none" at the prompt and under -e.
function M.script()
  local path = type(arg) == "table" and arg[0]
  local file = path and io.open(path, "rb")
  if not file then return "none" end
  local text = file:read "*a" or ""
  file:close()
  return ("%s, %d bytes, crc %08x"):format(path:match "[^/]*$", #text, C.atomo_crc32(text, #text))
end

--- Items for check: the program's versions and the script. CPU and compiler may differ; results do not depend on them.
function M.program()
  local v = version.versions()
  return {{"version of atomo", v.atomo}, {"version of LuaJIT", v.luajit}, {"version of MPI", v.mpi},
    {"version of BLAS", v.blas:match "^%S+ %S+" or v.blas}, {"version of FFTW", v.fftw},
    {"version of oneDNN", v.onednn}, {"script", M.script()}}
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

--- Items of a table with text keys: numbers, texts, booleans and lists of them; other values and `skip` are left out.
function M.items(t, skip)
  local items = {}
  for _, key in ipairs(sorted_keys(t)) do
    local v = t[key]
    local plain = type(v) == "number" or type(v) == "string" or type(v) == "boolean" or
      type(v) == "table" and (type(v[1]) == "string" or type(v[1]) == "number")
    if plain and not (skip and skip[key]) then items[#items + 1] = {key, v} end
  end
  return items
end

return M
