--- Queries programs of the tree for the specs of the documents: the options in their --help, and whether they accept a
-- command line.
local spawn = require "support.spawn"
local root = require "support.root" .. "."

local M = {root = root}

local function lines_of(command)
  local p, list = io.popen(command), {}
  for line in p:lines() do list[#list + 1] = line end
  p:close()
  return list
end

--- Returns the set of all files of the tree except built ones, as paths relative to the root.
function M.files()
  if M.known_files then return M.known_files end
  M.known_files = {}
  local find = ("cd %s && find . -name .git -prune -o -path ./build -prune -o -type f -print"):format(spawn.quote(root))
  for _, path in ipairs(lines_of(find)) do M.known_files[path:sub(3)] = true end
  return M.known_files
end

local helps = {}

--- Returns the text of a program's --help. program: "scripts/NAME.lua", "scripts/NAME.sh", "atomo-lua" or "mpirun".
function M.help(program)
  if helps[program] then return helps[program] end
  local path = spawn.quote(root .. "/" .. program)
  local command = program == "atomo-lua" and spawn.quote(spawn.exe) .. " --help"
    or program == "mpirun" and "mpirun --help full"
    or program:find "%.sh$" and "sh " .. path .. " --help"
    or program:find "%.py$" and "python3 " .. path .. " --help"
    or spawn.quote(spawn.exe) .. " " .. path .. " --help"
  helps[program] = spawn.run(command)
  return helps[program]
end

--- Does the help of the program name this option ("--name", "-n")?
function M.has_option(program, option)
  local text = M.help(program)
  option = option:match "^[^=]+"
  local positive = option:match "^%-%-no%-(.*)$"
  for _, name in ipairs {option, positive and "--" .. positive} do
    local pattern = "%f[%w%-]" .. name:gsub("%p", "%%%0") .. "%f[^%w%-_]"
    if text:find(pattern) then return true end
  end
  return text:find("--no-" .. option:match "^%-*(.*)$", 1, true) ~= nil
end

--- Returns the programs whose options documents may name.
function M.all()
  local list = {"atomo-lua", "mpirun", "tests/kill_series.sh", "tests/mutate.lua"}
  for path in pairs(M.files()) do
    if path:find "^scripts/[%w_]+%.lua$" or (path:find "^scripts/[%w_]+%.sh$" and not path:find "/lib%.sh$") or
      path == "examples/pytorch/train_cifar.py" or path == "examples/pytorch/bench_ddp.py" then
      list[#list + 1] = path
    end
  end
  table.sort(list)
  return list
end

local function quoted(words)
  local list = {}
  for i, word in ipairs(words) do list[i] = spawn.quote(word) end
  return table.concat(list, " ")
end

--- Returns nil if a Lua script accepts these arguments (names, values, choices), else its error. The script is started
--- with --help at the end, which it handles only if all arguments before are valid.
function M.refuses(script, arguments)
  local out, code = spawn.run(("%s %s %s --help"):format(spawn.quote(spawn.exe), spawn.quote(root .. "/" .. script),
    quoted(arguments)))
  if code ~= 0 then return out:match "^[^\n]*" end
end

--- Returns nil if all compressors can be made after these files were loaded, else the first error.
function M.no_compressor(specs, loads)
  local text = {"local atomo = require 'atomo' "}
  for _, file in ipairs(loads) do text[#text + 1] = ("dofile %q "):format(root .. "/" .. file) end
  for _, spec in ipairs(specs) do text[#text + 1] = ("atomo.compressor %q "):format(spec) end
  local out, code = spawn.host {"-e", table.concat(text)}
  if code ~= 0 then return out:match "^[^\n]*" end
end

return M
