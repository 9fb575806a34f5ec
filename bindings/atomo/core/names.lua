--- Former module names, from before modules were moved into folders, so that existing scripts keep working.
-- `require "atomo.safetensors"` returns the module atomo.tensor.safetensors, loaded on first use.
local rooms = {
  core = "json log suggest version number files blocks progress",
  tensor = "linalg safetensors check_options",
  autograd = "gradcheck gradient elementwise ops",
  nn = "functional",
  data = "loader text",
  optim = "schedule",
  comm = "mpi replicas",
  train = "step checkpoint report",
  tools = "cli script plot profile simulate compare gradients verify",
}

for room, names in pairs(rooms) do
  for name in names:gmatch "%S+" do
    package.preload["atomo." .. name] = function() return require(("atomo.%s.%s"):format(room, name)) end
  end
end

return rooms
