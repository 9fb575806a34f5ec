--- check_house.lua - checks rules of this source tree: a layer only uses layers below it, file names in comments and
-- documents exist, a --no-x option's help says what it turns off, stated versions agree, error texts print no tensor.
-- Needs only Lua 5.1 and `find`.
--   luajit scripts/check_house.lua            or build/atomo-lua scripts/check_house.lua
-- Ends with "N faults", and exit code 1 if there is any. It also lists long files and words to avoid, which are no
-- faults.
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/?.lua;" .. package.path
local layers, references, taste = require "house.layers", require "house.references", require "house.taste"
local errors, version = require "house.errors", require "house.version"

local usage = [[
usage: luajit scripts/check_house.lua [--root DIR] [--graph] [--words] [--help]
Checks that layers of the source tree only use layers below them, that file names in comments and documents exist, that
help texts of --no-x options say what they turn off, that all files state one version, and that error texts get values
by brief(v). Exit code 1 if there is a fault. Long files, wide lines and words to avoid are listed, too, but are no
faults.
  --root DIR   the tree to check (default: the one that holds this script)
  --graph      only print which file uses which
  --words      print every place of a word to avoid, not only their number
]]

local opts = {root = here .. "/.."}
do
  local i = 1
  while arg[i] do
    if arg[i] == "--root" and arg[i + 1] then
      i = i + 1
      opts.root = arg[i]
    elseif arg[i] == "--graph" or arg[i] == "--words" then
      opts[arg[i]:sub(3)] = true
    else
      io.stderr:write(usage)
      os.exit(arg[i] == "--help" and 0 or 2)
    end
    i = i + 1
  end
end

--- Returns path -> text of every file that is checked, and the sorted paths.
local function read_tree(root)
  local tree, paths = {}, {}
  local quoted = "'" .. root:gsub("'", "'\\''") .. "'"
  local pipe = assert(io.popen("cd " .. quoted .. " && find . -type f -not -path './.git/*' -not -path './build/*' " ..
    "-not -path './tests/fuzz/corpus/*'"))
  for line in pipe:lines() do paths[#paths + 1] = line:sub(3) end
  pipe:close()
  table.sort(paths)
  for _, path in ipairs(paths) do
    local file = assert(io.open(root .. "/" .. path, "rb"))
    tree[path] = file:read "*a"
    file:close()
  end
  return tree, paths
end

local tree, paths = read_tree(opts.root)
if #paths == 0 then
  io.stderr:write("check_house: no file below " .. opts.root .. "\n")
  os.exit(2)
end

local faults = {}
local function fault(text) faults[#faults + 1] = text end

local c, lua = layers.of_c(tree, paths), layers.of_lua(tree, paths)
if opts.graph then
  for _, graph in ipairs {c, lua} do
    for _, a in ipairs(graph.arrows) do print(a.from, a.to, a.what) end
  end
  return
end
layers.check(c, fault)
layers.check(lua, fault)
references.check(tree, paths, fault)
taste.check_help(tree, paths, fault)
version.check(tree, paths, fault)
errors.check(tree, paths, fault)

taste.list(tree, paths, opts.words, print)
for _, graph in ipairs {c, lua} do print(layers.summary(graph)) end
for _, text in ipairs(faults) do print("fault: " .. text) end
print(("%d faults"):format(#faults))
os.exit(#faults == 0 and 0 or 1)
