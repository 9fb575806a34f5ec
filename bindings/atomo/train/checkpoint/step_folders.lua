--- Checkpoints: folders DIR/step-N, each complete or absent. A checkpoint is written as DIR/step-N.partial and renamed
-- when all files are on the disk. DIR/latest and DIR/best are text files that name one. A later checkpoint has a larger
-- serial number, but not always a larger step: a run may be resumed from an earlier one.
local disk = require "atomo.train.checkpoint.disk"
local json = require "atomo.core.json"
local manifest = require "atomo.train.checkpoint.manifest"
local together = require "atomo.train.checkpoint.together"
local raise = require("atomo.ffi").raise

local M = {}

local PATTERN = "^step%-%d+$"
local PARTIAL, REPLACED, REMOVED = ".partial", ".replaced", ".removed"

function M.name_of(step) return ("step-%d"):format(step) end

--- Splits "DIR/step-N" into folder and name; nil for other paths.
function M.split(path)
  local dir, name = path:gsub("/+$", ""):match "^(.-)/*([^/]+)$"
  if not name or not name:match(PATTERN) then return end
  return dir ~= "" and dir or path:sub(1, 1) == "/" and "/" or ".", name
end

--- Reads the manifest of DIR/name; returns nil and the reason if it is missing, damaged or of another checkpoint.
local function read(dir, name)
  local body, why = manifest.read(dir .. "/" .. name)
  if body and M.name_of(tonumber(body.step) or -1) ~= name then
    return nil, ("its manifest is that of %s"):format(M.name_of(tonumber(body.step) or -1))
  end
  return body, why
end

--- Lists the checkpoints of a folder.
---@param dir string
---@return table[] sound   {name=, body= manifest}, the largest serial number first
---@return table[] others  {name=, why=}: those without a valid manifest
function M.list(dir)
  local sound, others = {}, {}
  for _, name in ipairs(disk.kind(dir) == "folder" and disk.names(dir) or {}) do
    if name:match(PATTERN) then
      local body, why = read(dir, name)
      local list = body and sound or others
      list[#list + 1] = {name = name, body = body, why = why}
    end
  end
  table.sort(sound, function(a, b) return a.body.serial > b.body.serial end)
  return sound, others
end

--- Returns the checkpoint that file `pointer` ("latest" or "best") of a folder names, or nil.
function M.pointed(dir, pointer)
  local text = disk.kind(dir .. "/" .. pointer) == "file" and disk.read_text(dir .. "/" .. pointer)
  return text and text:match "^(step%-%d+)%s"
end

--- Returns the test result recorded in `best`, as a number of which larger is better, and its kind, "accuracy" or
--- "loss"; nil if there is none.
function M.best(dir)
  local name = M.pointed(dir, "best")
  if not name or disk.kind(dir .. "/" .. name) ~= "folder" then return end
  local kind, value = disk.read_text(dir .. "/best"):match "test_(%a+) (%S+)"
  value = tonumber(value)
  if value then return kind == "loss" and -value or value, kind end
end

--- Makes `pointer` name a checkpoint. more: text after the name.
function M.point(dir, pointer, name, more)
  disk.write_text(dir .. "/" .. pointer, ("%s%s\n"):format(name, more and " " .. more or ""))
end

--- Reads the manifest of DIR/name and checks all its files, which the ranks share. Returns the manifest, or nil and the
--- reason. [collective]
---@param comm table
---@param dir string
---@param name string
function M.inspect(comm, dir, name)
  local folder = dir .. "/" .. name
  local body, why = read(dir, name)
  for i, entry in ipairs(body and body.files or {}) do
    if (i - 1) % comm.size == comm.rank then why = why or manifest.problem(folder, entry) end
  end
  for _, text in ipairs(comm:allgatherv(why and "!" .. why or "")) do
    if text ~= "" then return nil, text:sub(2) end
  end
  if not together.equal(comm, disk.read_text(folder .. "/" .. manifest.NAME) or "") then
    return nil, "the ranks read other manifests: it must be in one folder that all hosts share"
  end
  return body
end

--- Finds the newest complete checkpoint of a folder. [collective]
---@param comm table
---@param dir string
---@return string? name   nil if there is none
---@return table? body    its manifest
---@return string[] passed  a line for each newer one that is not complete
function M.newest(comm, dir)
  local texts = together.run(comm, function()
    if comm.rank > 0 then return "{}" end
    local sound, others = M.list(dir)
    local found = {names = {}, passed = {}}
    for i, each in ipairs(sound) do found.names[i] = each.name end
    for i, each in ipairs(others) do found.passed[i] = ("%s/%s is skipped: %s"):format(dir, each.name, each.why) end
    return json.encode(found)
  end)
  local found = json.decode(together.from_first(comm, texts))
  local passed = found.passed or {}
  for _, name in ipairs(found.names or {}) do
    local body, why = M.inspect(comm, dir, name)
    if body then return name, body, passed end
    passed[#passed + 1] = ("%s/%s is skipped: %s"):format(dir, name, why)
  end
  return nil, nil, passed
end

-- ---- writing -----------------------------------------------------------------------------------------------------

--- Removes files of unfinished saves; returns their names. Call it on one rank.
---@param dir string
---@return string[]
function M.clean(dir)
  local gone = {}
  for _, name in ipairs(disk.names(dir)) do
    local whole, suffix = name:match "^(step%-%d+)(%.%a+)$"
    local path = dir .. "/" .. name
    if suffix == REPLACED and not disk.kind(dir .. "/" .. whole) then
      disk.rename(path, dir .. "/" .. whole) -- the checkpoint that was to replace it was not completed
      gone[#gone + 1] = name .. " (back in place)"
    elseif suffix == PARTIAL or suffix == REPLACED or suffix == REMOVED then
      disk.remove_folder(path)
      gone[#gone + 1] = name
    elseif name:match "^%.probe" or name:match "^latest%.%d+%.tmp$" or name:match "^best%.%d+%.tmp$" then
      disk.remove(path)
      gone[#gone + 1] = name
    end
  end
  return gone
end

--- Returns the folder in which checkpoint `name` is written.
function M.partial(dir, name) return dir .. "/" .. name .. PARTIAL end

--- Makes this folder, empty. Call it on one rank.
function M.begin(dir, name)
  local path = M.partial(dir, name)
  if disk.kind(path) == "folder" then disk.remove_folder(path) end
  disk.make(path)
end

--- Writes the manifest, the last file of a checkpoint, and renames the folder to DIR/name. Call it on one rank.
function M.commit(dir, name, body)
  local path, sound = M.partial(dir, name), M.list(dir)
  for _, entry in ipairs(body.files) do
    if disk.kind(path .. "/" .. entry.name) ~= "file" then
      raise(("checkpoint: %s/%s is not there: %s must be one folder that all hosts share"):format(path, entry.name,
        dir))
    end
  end
  body.serial = (sound[1] and sound[1].body.serial or 0) + 1
  manifest.write(path, body)
  disk.sync(path)
  local whole = dir .. "/" .. name
  local there = disk.kind(whole)
  if there then disk.rename(whole, whole .. REPLACED) end
  disk.rename(path, whole)
  disk.sync(dir)
  M.point(dir, "latest", name)
  if there then disk.remove_folder(whole .. REPLACED) end
end

--- Removes all checkpoints except the `keep` newest and those that latest and best name. Call it on one rank.
function M.prune(dir, keep)
  local latest, best = M.pointed(dir, "latest"), M.pointed(dir, "best")
  for i, each in ipairs((M.list(dir))) do
    if i > keep and each.name ~= latest and each.name ~= best then
      local path = dir .. "/" .. each.name
      disk.rename(path, path .. REMOVED) -- so that no partly removed folder has a checkpoint's name
      disk.remove_folder(path .. REMOVED)
    end
  end
end

return M
