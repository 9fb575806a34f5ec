-- atomo.torch against PyTorch itself (Debian's python3-torch): every network of models/ takes its twin's weights and
-- computes its results; what is written back is bit for bit what came, and loads there with strict = True.
-- test: slow
local atomo = require "atomo"
local file = require "atomo.nn.torch.file"
local models = require "models"
local nn = atomo.nn
local root = require "support.root"
local spawn = require "support.spawn"

local python = "/usr/bin/python3"
local twins = spawn.quote(root .. "tests/support/torch_twins.py")

--- Networks that models/ has in other sizes than the twins.
local function bottlenecks()
  local whole = models.open("resnet50", {classes = 10})
  local net = nn.Module:extend "Small"()
  local Bottleneck = getmetatable(whole.layer1[1])
  net.conv1 = nn.Conv2d(3, 8, 3, {padding = 1, bias = false})
  net.bn1 = nn.BatchNorm2d(8, {relu = true})
  net.layer1 = nn.Sequential {Bottleneck(8, 32, 1), Bottleneck(32, 32, 1)}
  net.layer2 = nn.Sequential {Bottleneck(32, 64, 2), Bottleneck(64, 64, 1)}
  net.pool = nn.GlobalAvgPool()
  net.fc = nn.Linear(64, 10)
  getmetatable(net).forward = function(self, x)
    return self.fc(self.pool(self.layer2(self.layer1(self.bn1(self.conv1(x))))))
  end
  return net
end

local function transformer(tied)
  local net = require("models.transformer").transformer {vocab = 30, width = 32, layers = 2, heads = 4, length = 12}
  if tied then net.head.weight = net.tokens.weight end
  return net
end

--- Name of a twin -> the network here, how its names are matched, options of atomo.torch.
local networks = {
  lenet = {"names"}, alexnet = {"names"}, vgg11 = {"names"}, mobilenet = {"names"}, resnet20 = {"names"},
  resnet18 = {"names"}, wide_resnet16_4 = {"names"},
  resnet20_old = {"order", function() return models.open("resnet20", {classes = 10}) end},
  mlp = {"names", function() return require("models.mlp").mlp {hidden = {64}} end, {channels = 3}},
  densenet = {"order", function() return require("models.densenet").densenet40_12 {classes = 10} end},
  bottlenecks = {"names", bottlenecks},
  transformer = {"names", transformer}, tied = {"names", function() return transformer(true) end},
  lstm = {"names", function() return require("models.lstm").lstm {vocab = 30, width = 24, layers = 2} end},
}

describe("PyTorch's twins", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local out, code = spawn.run(python .. " -c 'import torch'", {timeout = 30})
  if code ~= 0 then
    return pending("no PyTorch for " .. python .. " (Debian's package python3-torch): " .. out:match "[^\n]*")
  end
  local folder
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder)
    out, code = spawn.run(("%s %s make %s"):format(python, twins, folder), {timeout = 60})
    assert(code == 0, out)
  end)
  teardown(function() os.execute("rm -r " .. folder) end)

  it("lend their weights, and get them back bit for bit", function()
    for name, case in pairs(networks) do
      local path = ("%s/%s"):format(folder, name)
      local model = case[2] and case[2]() or models.open(name, {classes = 10})
      local got = atomo.torch.load(path .. ".pt", model, case[3])
      assert.equal(case[1], got.how, name)
      local xy = file.open(path .. "_xy.pt")
      local x, y = file.tensor(xy, xy.tensors[1]), file.tensor(xy, xy.tensors[2])
      model:eval()
      atomo.no_grad(function()
        local off = (model(x) - y):norm_value(math.huge)
        assert(off <= 1e-5 * (1 + y:norm_value(math.huge)), ("%s: results differ by %g"):format(name, off))
      end)
      local options = {like = path .. ".pt"}
      for key, value in pairs(case[3] or {}) do options[key] = value end
      atomo.torch.save(path .. "_like.pt", model, options)
      atomo.torch.save(path .. "_own.pt", model, case[3])
    end
    out, code = spawn.run(("%s %s check %s"):format(python, twins, folder), {timeout = 60})
    assert(code == 0, out)
    for name in pairs(networks) do assert(out:find("\n" .. name .. " [^\n]*equal", 1) or
      out:find("^" .. name .. " [^\n]*equal"), out) end
  end)
end)
