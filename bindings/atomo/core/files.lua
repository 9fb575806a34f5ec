--- Every text that the program writes goes through here: logs, tables, drawings, standard output. A write is whole or
--- raises, naming the path and why. Lua's own file:write does not: compiled by LuaJIT, one that fails (a full disk) is
--- done again by the interpreter, which finds nothing left to write and succeeds (runtime/io/output.c). Stage 10.
local f = require "atomo.ffi"
local C, ffi, raise = f.C, f.ffi, f.raise

local M = {}

---@class atomo.File
---@field path string
local File = {}
File.__index = File

--- Raises who: C's text.
local function checked(who, status)
  if status < 0 then raise(("%s: %s"):format(who, ffi.string(C.atomo_last_error()))) end
  return status
end

--- A file to append to, or, unless `append`, to begin anew; who: begins the texts of errors.
---@param who string
---@param path string
---@param append boolean
---@return atomo.File
function M.open(who, path, append)
  local fd = checked(who, C.atomo_output_open(path, append and 1 or 0))
  return setmetatable({who = who, path = path, fd = fd}, File)
end

--- The text is in the file when this returns.
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

--- Replaces a file by text: whole, or as it was before.
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

--- Standard output as what log.progress draws on.
M.stdout = {write = function(_, text) M.put(text) end}

return M
