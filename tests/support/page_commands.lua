--- Runs the shell commands of a page in a folder with links to the tree, and compares their output with the text blocks
-- that follow. A Lua block that begins with "-- name.lua" is saved under that name.
local spawn = require "support.spawn"
local markdown = require "support.markdown"

local M = {}

--- Returns a line without numbers and spacing.
local function skeleton(line)
  return (line:gsub("%d[%d%.]*", "#"):gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

--- Returns the lines of the text that are not in the output. "..." matches any lines, or the rest of a line.
---@param lines string[]
---@param output string
function M.missing(lines, output)
  local list, printed = {}, {}
  for line in output:gmatch "[^\n]+" do printed[#printed + 1] = skeleton(line) end
  for _, line in ipairs(lines) do
    local wanted, rest = skeleton(line):match "^(.-) ?(%.?%.?%.?)$"
    local found = wanted == ""
    for _, other in ipairs(printed) do
      found = found or other == wanted or (rest == "..." and other:sub(1, #wanted) == wanted)
    end
    if not found then list[#list + 1] = line end
  end
  return list
end

local function write(path, lines)
  local file = assert(io.open(path, "w"))
  file:write(table.concat(lines, "\n"), "\n")
  file:close()
end

--- Runs the page; returns faults ("page:line: what"), and the lines of blocks with exit code 77 (not possible here).
---@param path string
---@param text string
function M.run(path, text)
  local folder = os.tmpname()
  os.remove(folder)
  os.execute(("root=$(cd %s && pwd) && mkdir -p %s/build && ln -s %s %s/build/atomo-lua && " ..
    "for e in scripts models docs tests; do ln -s \"$root/$e\" %s/$e; done"):format(
    spawn.quote(require "support.root" .. "."), folder, spawn.quote(spawn.exe), folder, folder))
  local faults, skipped, output = {}, {}, nil
  for _, block in ipairs(markdown.parse(text).blocks) do
    local function fault(what) faults[#faults + 1] = ("%s:%d: %s"):format(path, block.line, what) end
    local name = block.language == "lua" and block.lines[1]:match "^%-%- ([%w_]+%.lua)$"
    if name then
      write(folder .. "/" .. name, block.lines)
    elseif block.language == "sh" and block.marks == "" then
      write(folder .. "/block.sh", block.lines)
      local code
      output, code = spawn.run(("sh -c %s"):format(spawn.quote("cd " .. folder .. " && exec sh -e block.sh")),
        {timeout = 90})
      if code == 77 then
        output, skipped[#skipped + 1] = nil, block.line
      elseif code ~= 0 then
        fault(("exit code %d: %s"):format(code, output))
      end
    elseif block.language == "text" and output then
      for _, line in ipairs(M.missing(block.lines, output)) do fault("is not printed: " .. line) end
    end
  end
  os.execute("rm -r " .. folder)
  return faults, skipped
end

return M
