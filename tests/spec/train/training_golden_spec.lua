-- The same training as PyTorch: from the same weights and batches (made by a formula on both sides,
-- tests/golden/make_training.py) 50 losses of resnet20 and of the transformer agree to 1e-3.
local atomo = require "atomo"
local F = atomo.F
local root = require "support.root"
local golden = dofile(root .. "tests/golden/training.lua")

--- Makes a tensor of numbers in [-0.5, 0.5) by the golden script's linear congruential generator.
local function formula(shape, key)
  local t = atomo.empty(shape)
  local p, x = t:data(), (key * 7919 + 17) % 65537
  for i = 0, t:numel() - 1 do
    x = (x * 75 + 74) % 65537
    p[i] = x / 65537 - 0.5
  end
  return t
end

--- Weights by formula in the order of PyTorch's parameters; norms and biases start at 1 and 0.
local function fill(net, order)
  atomo.no_grad(function()
    for name, p in pairs(net:state_dict()) do
      if name:match "bias$" then p:zero_() end
    end
    for i, p in ipairs(order) do
      if p:dim() >= 2 then
        p:copy_(formula(p:shape(), i) * math.sqrt(12 / (p:numel() / p:size(1))))
      end
    end
  end)
end

local function follow(net, opt, losses, batch)
  for step, want in ipairs(losses) do
    atomo.scope(function()
      local x, y = batch(step - 1)
      opt:zero_grad()
      local loss = F.cross_entropy(net(x), y)
      loss:backward()
      opt:step()
      local got = loss:item()
      assert.is_true(math.abs(got - want) <= 1e-3 * math.abs(want),
        ("step %d: loss %.6f, PyTorch's is %.6f"):format(step, got, want))
    end)
  end
  assert.is_true(losses[#losses] < 0.6 * losses[1], "the golden run does not learn")
end

describe("50 steps follow PyTorch's losses to 1e-3:", function()
  require("support.one_thread")(lazy_setup, lazy_teardown)

  it("resnet20", function()
    local net = require("models.resnet").resnet20 {classes = 10}
    local function images(step)
      local labels = atomo.empty(8, "i32")
      for i = 1, 8 do labels:set(i, (3 * (i - 1) + step) % 10) end
      local x = formula({8, 16, 16, 3}, 100 + step % 4) * 2
      return x + labels:float():view(8, 1, 1, 1) * 0.1, labels
    end
    fill(net, net:parameters())
    for _, entry in ipairs(net:named_modules()) do
      if entry[2].class_name == "BatchNorm2d" then entry[2].bias:detach():fill_(2) end
    end
    follow(net, atomo.optim.sgd {params = net:parameters(), lr = 0.002, momentum = 0.9, weight_decay = 5e-4},
      golden.resnet20, images)
  end)

  it("transformer", function()
    local net = require("models.transformer").transformer {vocab = 29, width = 32, layers = 2, heads = 4, length = 16}
    local function text(step)
      local t = ((formula({4, 17}, 200 + step % 6) + 0.5) * 29):int()
      return t:narrow(2, 1, 16):contiguous(), t:narrow(2, 2, 16):contiguous()
    end
    fill(net, net:parameters())
    follow(net, atomo.optim.adamw {params = net:parameters(), lr = 1e-2, weight_decay = 0.01}, golden.transformer, text)
  end)
end)
