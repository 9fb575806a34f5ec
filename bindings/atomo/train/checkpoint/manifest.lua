--- The manifest of a checkpoint: the run's identity and position, and size and checksums of every file. It is written
-- last, as a text file with one JSON object {"checksum": CRC-32 of the text after "manifest":, "manifest": {...}}.
local f = require "atomo.ffi"
local disk = require "atomo.train.checkpoint.disk"
local json = require "atomo.core.json"
local C = f.C

local M = {NAME = "manifest", FORMAT = "atomo-generation-1"}

local function crc(text) return ("%08x"):format(C.atomo_crc32(text, #text)) end

---@param folder string
---@param body table   files = {{name=, bytes=, crc32=, contents=}, ...} and further fields
function M.write(folder, body)
  body.format = M.FORMAT
  local text = json.encode(body)
  disk.write_text(folder .. "/" .. M.NAME, ('{"checksum":"%s","manifest":%s}\n'):format(crc(text), text))
end

--- Reads the manifest of a folder; returns nil and the reason if it is missing or damaged.
---@param folder string
---@return table? body
---@return string? why
function M.read(folder)
  local text, why = disk.read_text(folder .. "/" .. M.NAME)
  if not text then return nil, "it has no manifest: " .. why end
  local checksum, inner = text:match '^{"checksum":"(%x+)","manifest":(.*)}\n$'
  if not checksum or crc(inner) ~= checksum then return nil, "its manifest is damaged or cut off" end
  local ok, body = pcall(json.decode, inner)
  if not ok or type(body) ~= "table" or body.format ~= M.FORMAT or type(body.files) ~= "table" then
    return nil, ("its manifest is of format '%s', expected '%s'"):format(ok and type(body) == "table" and
      tostring(body.format) or "none", M.FORMAT)
  end
  return body
end

--- Returns the entry of a newly written file. contents: checksum of its contents (file.digest).
function M.entry(folder, name, contents)
  local bytes, sum = disk.checksum(folder .. "/" .. name)
  return {name = name, bytes = bytes, crc32 = sum, contents = contents}
end

--- Returns what is wrong with a file that a manifest names, nil if nothing is.
---@param folder string
---@param entry {name: string, bytes: number, crc32: string}
---@return string?
function M.problem(folder, entry)
  local path = folder .. "/" .. entry.name
  if disk.kind(path) ~= "file" then return entry.name .. " is missing" end
  local ok, bytes, sum = pcall(disk.checksum, path)
  if not ok then return ("%s cannot be read: %s"):format(entry.name, bytes) end
  if bytes ~= entry.bytes then
    return ("%s has %.0f bytes, the manifest says %.0f"):format(entry.name, bytes, entry.bytes)
  end
  if sum ~= entry.crc32 then
    return ("%s is damaged: its checksum is %s, the manifest says %s"):format(entry.name, sum, entry.crc32)
  end
end

return M
