--- Opens models by name for scripts: a network of this folder ("resnet20" is in resnet.lua: the name without its
--- numbers) or a user's Lua file.
local raise = require("atomo.ffi").raise

local M = {}

--- Files of this folder, for lists and suggestions. A file that is not listed can be opened, too.
M.files = {"alexnet", "densenet", "lenet", "mlp", "mobilenet", "resnet", "vgg", "wide_resnet"}

--- Returns all names, sorted: {"lenet", "mlp", "resnet110", ...}.
function M.names()
  local names = {}
  for _, file in ipairs(M.files) do
    for name, make in pairs(require("models." .. file)) do
      if type(make) == "function" then names[#names + 1] = name end
    end
  end
  table.sort(names)
  return names
end

local function checked(model, from)
  if type(model) ~= "table" or type(model.parameters) ~= "function" then
    raise(("model: %s gave a %s, expected an nn.Module"):format(from, type(model)))
  end
  return model
end

--- Runs a file that returns a constructor, function(opts) return module end; returns the module.
local function from_file(path, opts)
  local chunk, problem = loadfile(path)
  if not chunk then raise(("model: %s"):format(problem)) end
  local make = chunk()
  if type(make) ~= "function" then
    raise(("model: %s returns a %s, expected a function of {classes=, shape=} that returns an nn.Module"):format(path,
      type(make)))
  end
  return checked(make(opts), path)
end

--- Makes the model of that name or file (*.lua). opts: passed to its constructor, {classes = 10, shape = {32, 32, 3}},
--- as data.classes and data.shape. Raises for unknown names, and for shapes that the model cannot take.
---@param name string
---@param opts table?
function M.open(name, opts)
  if name:match "%.lua$" then return from_file(name, opts or {}) end
  local ok, file = pcall(require, "models." .. name:gsub("[%d_]+$", ""))
  if ok and type(file) == "table" and type(file[name]) == "function" then
    return checked(file[name](opts or {}), name)
  end
  local names = M.names()
  local near = require "atomo.core.suggest"(name, names)
  raise(("model: unknown model '%s'%s; models are %s, or a file my_model.lua"):format(name,
    near and (", did you mean '%s'?"):format(near) or "", table.concat(names, ", ")))
end

return M
