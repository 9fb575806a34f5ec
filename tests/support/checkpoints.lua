--- Helpers for specs of checkpoints, on one or several ranks.
local atomo = require "atomo"
local disk = require "atomo.train.checkpoint.disk"
local world = atomo.mpi.world

local M = {}

local count, made = 0, {}

--- Returns a new path for a folder or file, the same on all ranks. [collective]
function M.path()
  local name = os.tmpname()
  os.remove(name)
  count = count + 1
  local path = ("%s.checkpoints%d"):format(world:allgatherv(name)[1], count)
  made[#made + 1] = path
  return path
end

local function remove(path)
  if disk.kind(path) == "folder" then
    for _, name in ipairs(disk.names(path)) do remove(path .. "/" .. name) end
  end
  disk.remove(path)
end

--- Removes a file, or a folder with its contents, and all paths that begin with its name and a dot. [collective]
function M.remove(path)
  world:barrier()
  if world.rank == 0 then
    local folder, name = path:match "^(.*)/([^/]+)$"
    for _, other in ipairs(disk.names(folder)) do
      if other == name or other:sub(1, #name + 1) == name .. "." then remove(folder .. "/" .. other) end
    end
  end
  world:barrier()
end

--- The same for paths that only this rank has made. [local]
M.remove_own = remove

--- Removes all paths returned by path(). [collective]
function M.remove_all()
  for _, path in ipairs(made) do M.remove(path) end
  made = {}
end

function M.bytes(path)
  local file = assert(io.open(path, "rb"))
  local bytes = assert(file:read "*a")
  file:close()
  return bytes
end

--- Returns the checkpoint that a folder's `latest` (or `best`) names.
function M.named(dir, pointer)
  return dir .. "/" .. M.bytes(dir .. "/" .. (pointer or "latest")):match "^%S+"
end

--- Returns the names of the checkpoints in a folder.
function M.names(dir)
  local list = {}
  for _, name in ipairs(disk.names(dir)) do
    if name:match "^step" then list[#list + 1] = name end
  end
  return list
end

--- Returns file name -> bytes of a checkpoint's files of tensors.
function M.files(folder)
  local files = {}
  for _, name in ipairs(disk.names(folder)) do
    if name:match "%.safetensors$" then files[name] = M.bytes(folder .. "/" .. name) end
  end
  return files
end

--- Runs fn() while the file has these bytes (nil: is missing); restores it afterwards. [collective]
function M.with_bytes(name, bytes, fn)
  local before = M.bytes(name)
  world:barrier()
  local function put(text)
    if world.rank == 0 then
      os.remove(name)
      if text then
        local file = assert(io.open(name, "wb"))
        assert(file:write(text))
        assert(file:close())
      end
    end
    world:barrier()
  end
  put(bytes)
  fn()
  world:barrier()
  put(before)
end

return M
