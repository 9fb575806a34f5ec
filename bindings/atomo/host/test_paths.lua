--- Paths that `atomo-lua test` is given: the folder `tests` above them goes on the module path (`require
-- "support.NAME"`), and a spec that is named without its folder is looked for in the folders beside it.
local ffi = require "ffi"
ffi.cdef [[char *atomo_host_realpath(const char *path, char *out) __asm__("realpath");]]

local PATH_MAX = 4096
local RENAMED = {peers = "baselines"} -- first word of a spec's name before -> now

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

--- The path of the folder `tests` that holds this file or folder, with its last slash, or nil.
local function tests_folder(path)
  local out = ffi.new("char[?]", PATH_MAX)
  local function above(name) return (name .. "/"):match "^(.*%f[^/%z]tests/)" end
  return above(path) or ffi.C.atomo_host_realpath(path, out) ~= nil and above(ffi.string(out)) or nil
end

--- FOLDER/*/NAME_spec.lua for FOLDER/NAME_spec.lua, or nil where there is none.
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

--- Puts the folders on the module path, and full paths in the place of short ones in the list of arguments.
return function(arguments)
  local rank = os.getenv "OMPI_COMM_WORLD_RANK" or "0"
  for i, path in ipairs(arguments) do
    local found = not exists(path) and in_a_folder(path)
    if found then
      if rank == "0" then io.stderr:write(("atomo-lua test: %s is now %s\n"):format(path, found)) end
      path, arguments[i] = found, found
    end
    local folder = tests_folder(path)
    local entry = folder and folder .. "?.lua;"
    if entry and package.path:sub(1, #entry) ~= entry then package.path = entry .. package.path end
  end
end
