--- Temporary folders of files for specs about data.
local spawn = require "support.spawn"

local M = {}

--- Returns the bytes of hexadecimal text.
function M.unhex(text) return (text:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)) end

--- Writes a file, and the folders that it lies in.
function M.write(path, bytes)
  local file = io.open(path, "wb")
  if not file then
    assert(os.execute("mkdir -p " .. spawn.quote(path:match "^(.*)/")) == 0)
    file = assert(io.open(path, "wb"))
  end
  file:write(bytes)
  file:close()
end

--- Calls fn(path) for a temporary folder with these files, {["a/b.png"] = bytes}, and removes it, also if fn raises.
---@param contents table<string, string>
---@param fn fun(path: string)
function M.with(contents, fn)
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir " .. spawn.quote(path)) == 0)
  local ok, problem = pcall(function()
    for name, bytes in pairs(contents) do M.write(path .. "/" .. name, bytes) end
    fn(path)
  end)
  os.execute("rm -r " .. spawn.quote(path))
  if not ok then error(problem, 0) end
end

return M
