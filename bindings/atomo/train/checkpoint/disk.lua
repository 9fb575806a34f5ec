--- Disk operations of checkpoints, one function per kind of change. Errors name the path and the reason.
local f = require "atomo.ffi"
local safetensors = require "atomo.tensor.safetensors"
local ffi, C, raise = f.ffi, f.C, f.raise

local M = {}

local function checked(status, who)
  if status < 0 then raise((who or "checkpoint") .. ": " .. ffi.string(C.atomo_last_error())) end
  return status
end

local kinds = {[0] = nil, "file", "folder", "other"}

--- Returns "file", "folder" or "other"; nil if nothing has this path.
---@param path string
function M.kind(path) return kinds[checked(C.atomo_path_kind(path))] end

--- Makes a folder if it does not exist; its parent must exist. who: the head of an error ("checkpoint").
---@param path string
---@param who string?
function M.make(path, who) checked(C.atomo_folder_make(path), who) end

--- Returns the sorted names of a folder's entries.
---@return string[]
function M.names(path)
  local need, room = ffi.new "double[1]", 4096
  while true do
    local out = ffi.new("char[?]", room)
    checked(C.atomo_folder_names(path, out, room, need))
    local n = f.number(need)
    if n <= room then
      local list = {}
      for name in ffi.string(out, n):gmatch "[^%z]+" do list[#list + 1] = name end
      table.sort(list)
      return list
    end
    room = n + 4096
  end
end

function M.rename(from, to) checked(C.atomo_path_rename(from, to)) end

--- Removes a file or an empty folder, if it exists.
function M.remove(path) checked(C.atomo_path_remove(path)) end

--- Flushes a folder to disk.
function M.sync(path) checked(C.atomo_folder_sync(path)) end

--- Replaces a text file; it is complete and on the disk when this returns.
function M.write_text(path, text) checked(C.atomo_output_save(path, text, #text)) end

--- Makes a file for which the disk keeps room; raises, and leaves no file, if the disk or a quota has less.
---@param path string
---@param bytes number
function M.reserve(path, bytes) checked(C.atomo_file_reserve(path, bytes)) end

--- Replaces a file of tensors, like M.write_text.
function M.write(path, tensors, metadata) safetensors.save(path, tensors, metadata) end

--- Returns the text of a file; nil and the reason if it cannot be read.
function M.read_text(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text, problem = file:read "*a"
  file:close()
  return text, problem
end

--- Returns the length of a file in bytes, and its CRC-32 as eight hexadecimal digits.
---@return number size
---@return string crc
function M.checksum(path)
  local size, crc = ffi.new "double[1]", ffi.new "double[1]"
  checked(C.atomo_file_checksum(path, size, crc))
  return f.number(size), ("%08x"):format(f.number(crc))
end

--- Removes a folder and the files in it.
function M.remove_folder(path)
  for _, name in ipairs(M.names(path)) do M.remove(path .. "/" .. name) end
  M.remove(path)
end

return M
