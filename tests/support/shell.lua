--- Files of text, and commands under a time limit.
local clock = require "atomo.ffi".C.atomo_time
local system = require "atomo.tools.system"

local M = {quote = system.quote, read = system.read}

--- Returns a file's bytes; raises if it cannot be read.
function M.content(path)
  local file = assert(io.open(path, "rb"))
  local text = assert(file:read "*a")
  file:close()
  return text
end

--- Writes a file; raises if it cannot be written.
function M.write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
end

--- Runs a command in a folder. Returns whether it exits with 0 within `limit` seconds, its seconds, and whether it was
--- ended at the limit. Its output goes to the file `log`.
function M.run(folder, command, limit, log)
  local from = clock()
  local status = os.execute(("cd %s && ulimit -v 25165824 && timeout -k 10 %.0f %s > %s 2>&1 < /dev/null"):format(
    M.quote(folder), limit, command, M.quote(log or "/dev/null")))
  return status == 0, clock() - from, status == 124 * 256 or status == 137 * 256
end

--- Returns the lines that a command prints.
function M.lines_of(command)
  local pipe, list = io.popen(command), {}
  for line in pipe:lines() do list[#list + 1] = line end
  pipe:close()
  return list
end

return M
