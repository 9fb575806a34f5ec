--- Folders of checkpoints, for specs on one rank or several.
local atomo = require "atomo"
local disk = require "atomo.train.checkpoint.disk"
local world = atomo.mpi.world

local M = {}

local count, made = 0, {}

--- A name for a folder (or file), the same on all ranks; nothing has it yet. [collective]
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

--- Removes a file or folder with all that it holds, and what begins with its name and a dot. [collective]
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

--- What this rank alone has made.
M.remove_own = remove

--- Removes all that path() has named. [collective]
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

--- The generation that a folder's `latest` (or `best`) names.
function M.named(dir, pointer)
  return dir .. "/" .. M.bytes(dir .. "/" .. (pointer or "latest")):match "^%S+"
end

--- Names of the generations in a folder.
function M.generations(dir)
  local list = {}
  for _, name in ipairs(disk.names(dir)) do
    if name:match "^step" then list[#list + 1] = name end
  end
  return list
end

--- Bytes by name of the files of tensors of a generation.
function M.files(generation)
  local files = {}
  for _, name in ipairs(disk.names(generation)) do
    if name:match "%.safetensors$" then files[name] = M.bytes(generation .. "/" .. name) end
  end
  return files
end

--- fn() while the file has other bytes (nil: is missing). [collective]
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
