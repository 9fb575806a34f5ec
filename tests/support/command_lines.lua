--- Checks shell commands in the documents without running them: programs and files exist, options are in the program's
-- --help, values are valid, compressors can be made.
local programs = require "support.programs"

local M = {programs = programs}

-- System programs and words of the shell, whose arguments are not checked.
local of_the_system = {}
for name in ("cd cp export git xargs cat grep apt-get docker luajit cc cpack ldconfig module source ./encode " ..
  "dot pip torchrun man trap while do done if then fi [ exit"):gmatch "%S+" do
  of_the_system[name] = true
end

-- Options of srun, for machines without Slurm.
local srun = {["--mpi"] = true, ["--cpus-per-task"] = true, ["--kill-on-bad-exit"] = true, ["-n"] = true}

local function rest(words, from)
  local list = {}
  for i = from, #words do list[#list + 1] = words[i] end
  return list
end

--- Returns the compressors named by --compress and the files of --load; nil if one of the files is not in the tree.
local function compressors(arguments)
  local specs, loads = {}, {}
  for i, word in ipairs(arguments) do
    local option, value = word:match "^(%-%-[%w-]+)=(.*)$"
    option, value = option or word, value or arguments[i + 1] or ""
    if option == "--compress" then
      for spec in value:gmatch "%S+" do
        spec = spec:gsub("@%w+$", "")
        if not (spec == "all" or spec == "auto" or spec == "..." or spec:find "^%u+$") then specs[#specs + 1] = spec end
      end
    elseif option == "--load" then
      if not programs.files()[value] then return {}, {} end
      loads[#loads + 1] = value
    end
  end
  return specs, loads
end

local function check_script(words, fault)
  local script = words[1]
  if script == "test" then
    for _, path in ipairs(rest(words, 2)) do
      local there = programs.files()[path] or path == "tests/spec" or path == "tests/mpi"
      if not path:find "^%-" and not there then fault(("%s is not in the tree"):format(path)) end
    end
    return
  end
  if not script:find "/" then return end -- the reader's own
  if not programs.files()[script] then return fault(("%s is not in the tree"):format(script)) end
  local arguments = {}
  for _, word in ipairs(rest(words, 2)) do
    if word == ">" then break end
    if word ~= "..." then arguments[#arguments + 1] = word end
  end
  if not script:find "^scripts/" then return end
  local why = programs.refuses(script, arguments)
  if why then return fault(why) end
  local specs, loads = compressors(arguments)
  why = #specs > 0 and programs.no_compressor(specs, loads)
  if why then fault(why) end
end

local check

--- Checks the options up to the word for which `stops` is true; returns the words from there on. A word without a
-- leading dash is an option's value.
local function take_options(program, words, from, known, stops, fault)
  local i = from
  while i <= #words and not stops(words[i]) do
    if words[i]:find "^%-" and not known(words[i]) then
      fault(("%s does not know %s"):format(program, words[i]))
    end
    i = i + 1
  end
  return rest(words, i)
end

local function is_host(word) return word:find "atomo%-lua$" ~= nil end
local function is_separator(word) return word == "--" end

--- own: mpirun.sh, whose options may precede mpirun's; or nil.
local function check_mpirun(words, fault, own)
  local function is_known(option)
    return own and programs.has_option(own, option) or programs.has_option("mpirun", option)
  end
  local left = take_options("mpirun", words, 2, is_known,
    function(word) return is_host(word) or word == "..." end, fault)
  if is_host(left[1] or "") then check(left, fault) end
end

local function check_shell_script(words, fault)
  local path = words[2]
  if not programs.files()[path] then return fault(("%s is not in the tree"):format(path)) end
  if path == "scripts/mpirun.sh" then return check_mpirun(rest(words, 2), fault, path) end
  local left = take_options(path, words, 3, function(option) return programs.has_option(path, option) end,
    is_separator, fault)
  if path == "scripts/test.sh" then
    local steps = programs.help(path):match "steps:([^\n]*)" .. " "
    for i, word in ipairs(words) do
      if word == "--only" and not steps:find(" " .. words[i + 1] .. " ", 1, true) then
        fault(("scripts/test.sh has no step %s"):format(words[i + 1]))
      end
    end
  end
  if #left < 2 then return end
  if path == "scripts/quickstart.sh" then left[1] = "scripts/train_cifar.lua"
    return check_script(left, fault)
  end
  check(rest(left, 2), fault)
end

--- A Python program of the tree: its options are in its help.
local function check_python(words, fault)
  local path = words[2]
  if not path or not path:find "%.py$" then return end
  if not programs.files()[path] then return fault(("%s is not in the tree"):format(path)) end
  for _, word in ipairs(rest(words, 3)) do
    if word:find "^%-%-" and not programs.has_option(path, word) then
      fault(("%s does not know %s"):format(path, word))
    end
  end
end

local function check_cmake(words, fault)
  local file = assert(io.open(programs.root .. "/CMakePresets.json"))
  local presets = file:read "*a"
  file:close()
  for i, word in ipairs(words) do
    if word == "--preset" and not presets:find('"name": "' .. words[i + 1] .. '"', 1, true) then
      fault(("CMakePresets.json has no preset %s"):format(words[i + 1]))
    end
  end
end

--- Checks a command; calls fault(text) for each error.
---@param words string[]
---@param fault fun(text: string)
function M.check(words, fault)
  local program = words[1]
  if program:find "^[%w_]+=" then
    if #words > 1 then M.check(rest(words, 2), fault) end
  elseif is_host(program) then
    if words[2] and words[2]:find "^%-" then
      if not programs.has_option("atomo-lua", words[2]) then
        fault(("atomo-lua does not know %s"):format(words[2]))
      end
    elseif words[2] then
      check_script(rest(words, 2), fault)
    end
  elseif program == "env" then
    M.check(rest(words, 2), fault)
  elseif program == "python3" or program == "/usr/bin/python3" then
    check_python(words, fault)
  elseif program == "mpirun" then
    check_mpirun(words, fault)
  elseif program == "srun" then
    local left = take_options("srun", words, 2, function(option) return srun[option:match "^[^=]+"] end, is_host, fault)
    if #left > 0 then M.check(left, fault) end
  elseif program == "sh" then
    check_shell_script(words, fault)
  elseif program == "cmake" or program == "ctest" then
    check_cmake(words, fault)
  elseif not of_the_system[program] then
    fault(("%s is no program that these documents may use (the list is in tests/support/command_lines.lua)"):format(
      program))
  end
end

check = M.check

return M
