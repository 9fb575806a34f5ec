--- Gradients on which compressors are measured: from a folder, from a model, or generated. Only tensors of two or more
-- dimensions are used, because training compresses only these.
local raise = require("atomo.ffi").raise
local T = require "atomo.tensor"
local io_ = require "atomo.tensor.npy"
local F = require "atomo.nn.functional"
local quote = require("atomo.core.shell_words").quote
local data = require "atomo.data"
local optim = require "atomo.optim"

local M = {}

--- Reads the .npy files of a folder. Returns tensors and names.
---@param folder string
---@return atomo.Tensor[], string[]
function M.folder(folder)
  local list, names, files = {}, {}, {}
  local listing = io.popen("ls -- " .. quote(folder))
  for file in listing:lines() do files[#files + 1] = file:match "%.npy$" and file end
  listing:close()
  for _, file in ipairs(files) do
    local g = io_.from_npy(folder .. "/" .. file)
    if g:dim() >= 2 then list[#list + 1], names[#names + 1] = g, file:match "^(.*)%.npy$" end
  end
  if #list == 0 then raise(("no .npy files of two dimensions and more in %s"):format(folder)) end
  return list, names
end

--- Generates tensors in the shapes of ResNet-20's convolutions: low rank plus heavy-tailed noise. Returns tensors,
--- names.
---@return atomo.Tensor[], string[]
function M.made_up()
  local list, names = {}, {}
  T.manual_seed(1)
  local width = 3
  for stage = 0, 2 do
    for block = 1, 6 do
      local out = 16 * 2 ^ stage
      local g = T.randn(out, 9 * width):mul_(0.05)
      local p = g:data()
      for i = 0, g:numel() - 1 do p[i] = p[i] ^ 3 * 100 end
      for r = 1, 8 do g:add_(T.randn(out, 1):matmul(T.randn(1, 9 * width)):mul_(0.5 ^ r)) end
      list[#list + 1] = g:view(out, 3, 3, width)
      names[#names + 1] = ("stage%d.conv%d"):format(stage + 1, block)
      width = out
    end
  end
  return list, names
end

local files = {resnet20 = "resnet", resnet18 = "resnet", vgg11 = "vgg", lenet = "lenet", mlp = "mlp"}

--- Returns the gradients of a network of models/ after `steps` steps of SGD, and their names: one list of tensors for
--- each rank, of a batch of its own.
---@param name string
---@param steps integer
---@param folder string   data set; "": the synthetic one
---@param ranks integer
---@return atomo.Tensor[][], string[]
function M.of_ranks(name, steps, folder, ranks)
  if not files[name] then
    raise(("there is no model '%s'; there are lenet, mlp, resnet18, resnet20, vgg11"):format(name))
  end
  T.manual_seed(1)
  local set = data.open(folder, folder == "" and {train = 64 * (steps + ranks)} or nil)
  local model = require("models." .. files[name])[name] {classes = set.classes}
  local loader = data.loader {set = set.train, batch = 64, rank = 0, size = 1, seed = 1, mean = set.mean, std = set.std}
  local optimizer = optim.sgd {params = model:parameters(), lr = 0.05, momentum = 0.9}
  local lists, names, epoch = {}, {}, 0
  local function keep_gradients()
    local list = {}
    for i, p in ipairs(model:parameters()) do
      if p:dim() >= 2 then list[#list + 1], names[#list + 1] = p.grad:clone(), ("parameter %d"):format(i) end
    end
    lists[#lists + 1] = list
  end
  while #lists < ranks do
    epoch = epoch + 1
    for batch in loader:epoch(epoch) do
      optimizer:zero_grad()
      T.scope(function() F.cross_entropy(model(batch.x), batch.y):backward() end)
      if steps > 0 then optimizer:step() else keep_gradients() end
      if #lists == ranks then break end
      steps = steps - 1
    end
  end
  return lists, names
end

--- Returns the gradients of a network of models/ after `steps` steps of SGD, and their names.
---@param name string
---@param steps integer
---@param folder string?  data set; default: the synthetic one
---@return atomo.Tensor[], string[]
function M.model(name, steps, folder)
  local lists, names = M.of_ranks(name, steps, folder or "", 1)
  return lists[1], names
end

return M
