--- `atomo-lua new KIND NAME`: copies a file of scripts/templates to NAME.lua, in which NAME stands for the new name.
local files = require "atomo.core.files"
local scripts_folder = require "atomo.tools.scripts_folder"
local suggest = require "atomo.core.suggest"
local system = require "atomo.tools.system"

local KINDS = {"basis", "model", "train"}

-- What to do with the new file. NAME stands for its name, SCRIPTS for the folder of the scripts.
local NEXT = {
  train = {"atomo-lua NAME.lua", "mpirun -n 2 atomo-lua NAME.lua"},
  basis = {"atomo-lua NAME.lua", "atomo-lua SCRIPTS/compare_compressors.lua --load NAME.lua",
    "mpirun -n 2 atomo-lua SCRIPTS/train_cifar.lua --load NAME.lua --compress NAME:ratio=32"},
  model = {"atomo-lua NAME.lua", "mpirun -n 2 atomo-lua SCRIPTS/train_cifar.lua --model NAME.lua"},
}

local USAGE = "usage: atomo-lua new train|basis|model NAME\n" ..
  "  train NAME   a training script for the built-in synthetic set\n" ..
  "  basis NAME   a compressor by an orthonormal basis, with its proof\n" ..
  "  model NAME   a network for train_cifar.lua --model NAME.lua\n" ..
  "Writes NAME.lua into this folder; a file that is there stays as it is.\n"

local function wrong(text)
  io.stderr:write("atomo-lua new: ", text, "\n", USAGE)
  return 2
end

--- Writes the file. Returns the exit code.
---@param args string[]  kind and name
---@return integer
return function(args)
  local kind, name, more = args[1], args[2], args[3]
  if kind == "--help" then
    files.put(USAGE)
    return 0
  end
  if not kind then return wrong "the kind is missing" end
  if not NEXT[kind] then
    local near = suggest(kind, KINDS)
    return wrong(("unknown kind '%s'%s"):format(kind, near and (", did you mean %s?"):format(near) or ""))
  end
  if not name or more then return wrong(name and ("unexpected argument '%s'"):format(more) or "NAME is missing") end
  name = name:gsub("%.lua$", "")
  if not name:find "^[%a][%w_]*$" then
    return wrong(("NAME is '%s', expected a letter and then letters, digits and _"):format(name))
  end
  local path, folder = name .. ".lua", scripts_folder.find()
  if not folder then error("atomo-lua new: its templates are not installed", 0) end
  if system.read(path) then
    io.stderr:write(("atomo-lua new: %s is there already; choose another name, or move it away\n"):format(path))
    return 1
  end
  local text = system.read(("%s/templates/%s.lua"):format(folder, kind)):gsub("%f[%w_]NAME%f[^%w_]", name)
  files.save("atomo-lua new", path, text)
  files.say(("%s is written. Next:"):format(path))
  local scripts = scripts_folder.shown()
  for _, line in ipairs(NEXT[kind]) do
    files.say("  " .. line:gsub("NAME", name):gsub("SCRIPTS", function() return scripts end))
  end
  return 0
end
