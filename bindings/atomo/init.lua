--- atomo: tensors, autograd, layers, MPI communicators, ATOMO gradient compressors and training, for Lua.
-- `local atomo = require "atomo"`; README's tour and docs/ describe it. Most modules load on first use.
require "atomo.core.names"
local strict = require "atomo.core.strict"
local raise = require("atomo.ffi").raise
local atomo = {}

-- Names of these modules that are also fields of atomo: loaded at once.
for topic, names in pairs {
  tensor = "Tensor tensor empty zeros ones full arange linspace eye randn rand randperm manual_seed " ..
    "empty_like zeros_like ones_like full_like rand_like randn_like is_tensor scope mem " ..
    "set_num_threads num_threads find_nonfinite",
  ["tensor.npy"] = "from_npy from_npz",
  autograd = "param no_grad enable_grad func",
  ["autograd.gradcheck"] = "gradcheck",
  ["autograd.precision"] = "set_precision precision autocast set_activations activations",
  ["autograd.ops"] = "cat stack where einsum meshgrid",
  ["autograd.ops.linalg"] = "svd eigh qr rfft irfft",
} do
  local module = require("atomo." .. topic)
  for name in names:gmatch "%S+" do atomo[name] = module[name] end
end

-- Loaded on first use. lazy: the field is the whole module (atomo.nn). lazy_names: the field is the module's field of
-- the same name (atomo.compressor).
local lazy = {
  nn = "atomo.nn", F = "atomo.nn.functional", mpi = "atomo.comm.mpi", data = "atomo.data", optim = "atomo.optim",
  schedule = "atomo.optim.schedule", cli = "atomo.tools.cli", log = "atomo.core.log", text = "atomo.data.text",
  profile = "atomo.tools.profile", torch = "atomo.nn.torch",
}
local lazy_names = {
  versions = "atomo.core.version", version_text = "atomo.core.version",
  compressor = "atomo.compress", compressors = "atomo.compress", probabilities = "atomo.compress",
  basis = "atomo.compress", decomposition = "atomo.compress",
  codec = "atomo.compress", preset = "atomo.compress",
  verify = "atomo.tools.verify", exchange = "atomo.exchange", train = "atomo.train",
  elementwise = "atomo.autograd.elementwise", evaluate = "atomo.train.score",
}

--- Returns a module, after making an unknown name of it an error, unless it answers unknown names itself.
local function named(module, name)
  local meta = type(module) == "table" and getmetatable(module)
  if type(module) ~= "table" or type(meta) == "table" and meta.__index then return module end
  return strict.module(module, name)
end

--- Names of the built-in differentiable operators, those of layers included.
---@return string[]
---@usage #atomo.operators() > 50 --> true
function atomo.operators()
  require "atomo.nn" -- loads the rest
  return require("atomo.autograd").operators()
end

return setmetatable(atomo, {__index = function(self, name)
  local value
  if lazy[name] then
    value = named(require(lazy[name]), name)
  elseif lazy_names[name] then
    value = require(lazy_names[name])[name]
  end
  if value ~= nil then
    rawset(self, name, value)
  elseif not tostring(name):find "^__" then
    if type(rawget(atomo.Tensor, name)) == "function" then
      raise(("atomo.%s: there is no such name; it is a method of tensors: t:%s(...)"):format(name, name))
    end
    strict.unknown("atomo", name, self, lazy, lazy_names)
  end
  return value
end, __lazy = {lazy, lazy_names}})
