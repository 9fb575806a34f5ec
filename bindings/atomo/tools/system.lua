--- What tools ask the operating system for: texts of files, commands with a time limit, free space.
local M = {}

M.quote = require("atomo.core.shell_words").quote

--- Returns the text of a file, also of one in /proc; nil if it cannot be read.
---@param path string
---@return string?
function M.read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

--- Returns the first number in a file; nil if there is none.
function M.number(path) return tonumber((M.read(path) or ""):match "%-?%d+") end

--- Runs a shell command; returns its output, stderr included, and its exit code.
---@param command string
---@return string
---@return integer
function M.run(command)
  local pipe = io.popen("{ " .. command .. "\n} 2>&1 < /dev/null; echo \"<$?>\"")
  local text = pipe:read "*a"
  pipe:close()
  local out, code = text:match "^(.*)<(%d+)>\n"
  return out or text, tonumber(code) or 127
end

--- Returns the path of a program that PATH finds; nil if there is none.
---@param program string
---@return string?
function M.find(program)
  local out, code = M.run("command -v " .. M.quote(program))
  return code == 0 and out:match "[^\n]+" or nil
end

--- As M.run, but ends the command after `seconds`: exit code 124, or 137 if it had to be killed.
function M.run_limited(command, seconds)
  local limit = M.find "timeout" and ("timeout -k 2 %g "):format(seconds) or ""
  return M.run(limit .. command)
end

--- Returns the free bytes of the file system of a folder; nil if they are unknown.
function M.free_bytes(folder)
  local kilobytes = M.run("df -Pk " .. M.quote(folder)):match "\n%S+%s+%d+%s+%d+%s+(%d+)"
  return kilobytes and tonumber(kilobytes) * 1024
end

--- Returns bytes as "1.5 GB", in units of 1000.
function M.size(bytes)
  if bytes >= 1e9 then return ("%.1f GB"):format(bytes / 1e9) end
  return ("%.0f MB"):format(bytes / 1e6)
end

return M
