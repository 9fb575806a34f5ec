--- atomo: tensors, autograd, layers, MPI communicators, ATOMO gradient compressors and training, for Lua.
-- `local atomo = require "atomo"`; README's tour and docs/ say what is where. Topics load when first used.
local atomo = {}

-- Names of a topic file that are atomo's own.
for topic, names in pairs {
  tensor = "Tensor tensor empty zeros ones full arange randn rand manual_seed empty_like zeros_like is_tensor " ..
    "scope mem set_num_threads num_threads find_nonfinite",
  ops = "cat stack",
  linalg = "svd eigh qr rfft irfft",
  autograd = "param no_grad enable_grad func operators",
  gradcheck = "gradcheck",
  io = "from_npy from_npz",
} do
  local module = require("atomo." .. topic)
  for name in names:gmatch "%S+" do atomo[name] = module[name] end
end

-- Topics that are a name of their own (atomo.nn) or one name out of a file (atomo.compressor): loaded on first use.
local lazy = {
  nn = "atomo.nn", F = "atomo.functional", mpi = "atomo.mpi", data = "atomo.data", optim = "atomo.optim",
  schedule = "atomo.schedule", cli = "atomo.cli", log = "atomo.log", text = "atomo.text",
  profile = "atomo.profile",
}
local lazy_names = {
  versions = "atomo.version", version_text = "atomo.version",
  compressor = "atomo.compress", compressors = "atomo.compress", probabilities = "atomo.compress",
  basis = "atomo.compress", decomposition = "atomo.compress", preset = "atomo.compress", verify = "atomo.verify",
  exchange = "atomo.exchange", train = "atomo.train", elementwise = "atomo.elementwise",
}

return setmetatable(atomo, {__index = function(self, name)
  local value
  if lazy[name] then
    value = require(lazy[name])
  elseif lazy_names[name] then
    value = require(lazy_names[name])[name]
  end
  if value ~= nil then rawset(self, name, value) end
  return value
end})
