--- Text output: logs, tables, SVG files, standard output (stage 10). A write is complete or raises the path and reason.
--- Lua's file:write is not used, because LuaJIT can hide its failure: a compiled write that fails (disk full) is
--- repeated by the interpreter, which finds an empty buffer and succeeds (runtime/io/output.c).
local f = require "atomo.ffi"
local C, ffi, raise = f.C, f.ffi, f.raise

local M = {}

---@class atomo.File
---@field path string
local File = {}
File.__index = File

--- Raises "WHO: " and C's error text for a negative status.
local function checked(who, status)
  if status < 0 then raise(("%s: %s"):format(who, ffi.string(C.atomo_last_error()))) end
  return status
end

--- Opens a file to append to (append = true) or to overwrite.
---@param who string  first words of error texts
---@param path string
---@param append boolean
---@return atomo.File
function M.open(who, path, append)
  local fd = checked(who, C.atomo_output_open(path, append and 1 or 0))
  return setmetatable({who = who, path = path, fd = fd}, File)
end

--- Writes text at once: it is in the file when this returns.
---@param text string
function File:write(text)
  if not self.fd then raise(("%s: %s is closed"):format(self.who, self.path)) end
  checked(self.who, C.atomo_output_write(self.fd, self.path, text, #text))
end

function File:close()
  local fd = self.fd
  self.fd = nil
  if fd then checked(self.who, C.atomo_output_close(fd, self.path)) end
end

--- Replaces the contents of a file by text. If this fails, the old file stays.
---@param who string
---@param path string
---@param text string
function M.save(who, path, text) checked(who, C.atomo_output_save(path, text, #text)) end

--- Writes text to standard output and flushes it.
---@param text string
function M.put(text) checked("standard output", C.atomo_output_print(text, #text, 1)) end

--- A line on standard output.
---@param text string
function M.say(text) M.put(text .. "\n") end

--- Standard output as the stream of a progress line.
M.stdout = {write = function(_, text) M.put(text) end}

return M
