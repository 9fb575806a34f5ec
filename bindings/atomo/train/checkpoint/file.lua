--- One file of a checkpoint: named tensors and texts in safetensors format, with a checksum of its contents.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local disk = require "atomo.train.checkpoint.disk"
local safetensors = require "atomo.tensor.safetensors"
local C, check, raise = f.C, f.check, f.raise

local M = {FORMAT = "atomo-checkpoint-2"}

--- Returns the CRC-32 of all names, dtypes, shapes, bytes and metadata, as text.
---@param tensors table<string, atomo.Tensor>
---@param metadata table<string, string>
function M.digest(tensors, metadata)
  local lines, crc = {}, f.ffi.new "double[1]"
  for name, t in pairs(tensors) do
    local whole = t:is_contiguous() and t or t:detach():contiguous()
    check(C.atomo_tensor_crc(whole.h, crc))
    lines[#lines + 1] = ("%s %s %s %08x"):format(name, t:dtype(), T.shape_text(t), f.number(crc))
  end
  for key, text in pairs(metadata) do
    if key ~= "checksum" then lines[#lines + 1] = ("%s=%s"):format(key, text) end
  end
  table.sort(lines)
  local text = table.concat(lines, "\n")
  return ("%08x"):format(C.atomo_crc32(text, #text))
end

--- Writes a file; adds the format's name and the checksum to metadata.
---@param path string
---@param tensors table<string, atomo.Tensor>
---@param metadata table<string, string>
---@return string checksum
function M.write(path, tensors, metadata)
  metadata.format = M.FORMAT
  metadata.checksum = M.digest(tensors, metadata)
  disk.write(path, tensors, metadata)
  return metadata.checksum
end

--- Reads a file; raises if its format or its checksum is wrong.
---@param path string
---@return table<string, atomo.Tensor> tensors
---@return table<string, string> metadata
function M.read(path)
  local tensors, metadata = safetensors.load(path, {keep_dtype = true})
  if metadata.format ~= M.FORMAT then
    raise(("checkpoint: %s is no checkpoint of this version: format '%s', expected '%s'"):format(path,
      brief(metadata.format), M.FORMAT))
  end
  local found = M.digest(tensors, metadata)
  if metadata.checksum ~= found then
    raise(("checkpoint: %s is damaged: it says checksum %s, its contents have %s"):format(path,
      brief(metadata.checksum), found))
  end
  return tensors, metadata
end

return M
