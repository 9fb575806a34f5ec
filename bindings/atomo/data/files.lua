--- Looks into folders, for readers of data sets (stage 1).
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

--- Is there a file or folder of that name?
function M.exists(path) return check(C.atomo_path_kind(path)) ~= 0 end

function M.is_folder(path) return check(C.atomo_path_kind(path)) == 2 end

--- Returns the names in a folder, sorted by bytes, without those that begin with a dot.
---@return string[]
function M.list(path)
  local need, room = ffi.new "double[1]", 65536
  local bytes
  repeat -- the folder may grow meanwhile
    bytes = ffi.new("char[?]", room)
    check(C.atomo_folder_names(path, bytes, room, need))
    local enough = need[0] <= room
    room = enough and room or 2 * tonumber(need[0])
  until enough
  local names = {}
  for name in ffi.string(bytes, need[0]):gmatch "%Z+" do
    if name:sub(1, 1) ~= "." then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

--- Returns path/name of the first name that exists, or nil.
function M.first(path, names)
  for _, name in ipairs(names) do
    if M.exists(path .. "/" .. name) then return path .. "/" .. name end
  end
end

--- Does option `only` ("train" or "test"; absent: both) include this part?
function M.wants(what, options, split)
  local only = options and options.only
  if only ~= nil and only ~= "train" and only ~= "test" then
    raise(("%s: only = '%s', expected 'train' or 'test'"):format(what, brief(only)))
  end
  return only == nil or only == split
end

return M
