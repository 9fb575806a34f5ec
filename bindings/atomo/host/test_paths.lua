--- Paths given to `atomo-lua test`. The folder `tests` that contains them is added to package.path (`require
-- "support.NAME"`). A spec named without its folder is searched in the folders beside it.
local ffi = require "ffi"
ffi.cdef [[char *atomo_host_realpath(const char *path, char *out) __asm__("realpath");]]

local PATH_MAX = 4096
local RENAMED = {peers = "baselines", agree = "fingerprint"} -- first word of a spec's old name -> of its new name

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

--- Returns the path of the folder `tests` that contains this file or folder, with a final slash; nil if there is none.
local function tests_folder(path)
  local out = ffi.new("char[?]", PATH_MAX)
  local function above(name) return (name .. "/"):match "^(.*%f[^/%z]tests/)" end
  return above(path) or ffi.C.atomo_host_realpath(path, out) ~= nil and above(ffi.string(out)) or nil
end

--- For FOLDER/NAME_spec.lua returns FOLDER/*/NAME_spec.lua; nil if there is no such file.
local function in_a_folder(path)
  local folder, first, more = path:match "^(.-)([^/_]+)([^/]*_spec%.lua)$"
  if not folder then return nil end
  local known, lfs = pcall(require, "lfs")
  local entries = known and {pcall(lfs.dir, folder == "" and "." or folder)} or {}
  if not entries[1] then return nil end
  for entry in entries[2], entries[3] do
    local found = ("%s%s/%s%s"):format(folder, entry, RENAMED[first] or first, more)
    if entry:sub(1, 1) ~= "." and exists(found) then return found end
  end
end

--- Extends package.path, and replaces short paths in the list of arguments by full ones.
return function(arguments)
  local rank = require("atomo.core.launcher").rank()
  for i, path in ipairs(arguments) do
    local found = not exists(path) and in_a_folder(path)
    if found then
      if rank == 0 then io.stderr:write(("atomo-lua test: %s is now %s\n"):format(path, found)) end
      path, arguments[i] = found, found
    end
    local folder = tests_folder(path)
    local entry = folder and folder .. "?.lua;"
    if entry and package.path:sub(1, #entry) ~= entry then package.path = entry .. package.path end
  end
end
