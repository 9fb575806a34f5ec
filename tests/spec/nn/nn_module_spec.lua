-- nn.Module, the layers as modules, the models: registration, state, modes, initial values, parameter counts.
local atomo = require "atomo"
local fails = require "support.fails"
local names = require "support.module_names"
local nn, F = atomo.nn, atomo.F

local Net = nn.Module:extend "Net"
function Net:init()
  self.first = nn.Linear(3, 4)
  self.blocks = {nn.Linear(4, 4, {bias = false}), nn.BatchNorm2d(4)}
  self.scale = atomo.param(atomo.ones(1))
  self.note = "no state"
  self.last = nn.Sequential {nn.ReLU(), nn.Linear(4, 2), function(x) return x * 2 end}
end
function Net:forward(x) return self.last(self.blocks[1](self.first(x)) * self.scale) end

describe("nn.Module", function()
  before_each(function() atomo.manual_seed(1) end)

  it("registers assigned modules and parameters in order, under PyTorch's names", function()
    local net = Net()
    assert.equal("scale first.weight first.bias blocks.0.weight blocks.1.weight blocks.1.bias " ..
      "last.1.weight last.1.bias",
      names(net:named_parameters()))
    assert.equal("blocks.1.running_mean blocks.1.running_var", names(net:named_buffers()))
    assert.equal(8, #net:parameters())
    assert.equal(2, #net:buffers())
    assert.equal(1 + 16 + 16 + 8 + 10, net:num_parameters())
    assert.same({5, 2}, net(atomo.randn(5, 3)):shape())
  end)

  it("lists a shared parameter once, and keeps both names in the state", function()
    local a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    local net = nn.Sequential {a, b}
    assert.equal("0.weight 0.bias 1.bias", names(net:named_parameters()))
    assert.is_true(net:state_dict()["1.weight"] == a.weight)
  end)

  it("switches modes all the way down", function()
    local net = Net()
    assert.is_true(net.training and net.last[1].training)
    net:eval()
    assert.is_false(net.training or net.last[1].training or net.blocks[2].training)
    net:train()
    assert.is_true(net.blocks[2].training)
  end)

  it("saves and loads its state", function()
    local a, b = Net(), Net()
    b:load_state_dict(a:state_dict())
    local x = atomo.randn(2, 3)
    assert.equal(a(x):bytes(), b(x):bytes())
    assert.is_true(a.first.weight ~= b.first.weight)
  end)

  it("names everything that does not fit, and then changes nothing", function()
    local net = Net()
    local state, before = net:state_dict(), net.first.weight:bytes()
    state["first.weight"] = atomo.zeros(4, 5)
    state["first.bias"] = nil
    state["extra"] = atomo.zeros(1)
    state["scale"] = 3
    fails({"load_state_dict of Net", "missing: first.bias", "unexpected: extra",
      "first.weight is [4,5], expected [4,3]", "scale is a number"}, net.load_state_dict, net, state)
    assert.equal(before, net.first.weight:bytes())
    fails("got a string", net.load_state_dict, net, "model.bin")
  end)

  it("zeroes gradients", function()
    local net = nn.Linear(2, 2)
    net(atomo.ones(1, 2)):sum():backward()
    assert.is_true(net.weight.grad:abs():sum():item() > 0)
    net:zero_grad()
    assert.equal(0, net.weight.grad:abs():sum():item())
  end)

  it("prints as PyTorch does", function()
    assert.equal("Sequential(\n  (0): Linear(in_features=3, out_features=4, bias=True)\n  (1): Sequential(\n" ..
      "    (0): ReLU()\n  )\n)", tostring(nn.Sequential {nn.Linear(3, 4), nn.Sequential {nn.ReLU()}}))
    assert.equal("Conv2d(3, 8, kernel_size=(3, 5), stride=(2, 2), padding=(1, 2), bias=False)",
      tostring(nn.Conv2d(3, 8, {3, 5}, {stride = 2, padding = {1, 2}, bias = false})))
  end)

  it("refuses classes that are not modules", function()
    fails("entry 2 is a number", nn.Sequential, {nn.ReLU(), 3})
    fails("key 'relu'", nn.Sequential, {relu = nn.ReLU()})
    fails("expected a string", nn.Module.extend, nn.Module)
    fails("Empty: forward is not defined", nn.Module:extend "Empty"())
  end)

  it("Residual adds", function()
    local r = nn.Residual(function(x) return x * 2 end)
    assert.equal(6, r(atomo.full({1}, 2)):item())
  end)
end)

describe("layers", function()
  before_each(function() atomo.manual_seed(1) end)

  it("start from the seed", function()
    local function make()
      atomo.manual_seed(42)
      return nn.Conv2d(16, 64, 3), nn.Linear(100, 50)
    end
    local a, la = make()
    local b, lb = make()
    assert.equal(a.weight:bytes(), b.weight:bytes())
    assert.equal(la.weight:bytes(), lb.weight:bytes())
  end)

  it("Conv2d takes one table too", function()
    local c = nn.Conv2d {in_channels = 4, out_channels = 6, kernel_size = 3, padding = 1, groups = 2}
    assert.same({6, 3, 3, 2}, c.weight:shape())
    assert.same({1, 5, 5, 6}, c(atomo.randn(1, 5, 5, 4)):shape())
  end)

  it("Dropout keeps the mean, repeats with the seed, and is off in evaluation", function()
    local drop, x = nn.Dropout(0.25), atomo.ones(100000)
    F.dropout_stream(0, 1)
    local y = drop(x)
    -- standard error of the mean: sqrt(p / (1 - p) / n) = 0.0018; 5 of them: false alarm below 1e-6
    assert.is_near(1, y:mean():item(), 0.0092)
    F.dropout_stream(0, 1)
    assert.equal(y:bytes(), drop(x):bytes())
    assert.is_true(y:bytes() ~= drop(x):bytes())
    F.dropout_stream(1, 1)
    assert.is_true(y:bytes() ~= drop(x):bytes())
    drop:eval()
    assert.is_true(drop(x) == x)
  end)

  it("Dropout2d drops whole channels of an image, keeps the mean, and is off in evaluation", function()
    local drop, x = nn.Dropout2d(0.25), atomo.param(atomo.ones(100, 2, 3, 50))
    F.dropout_stream(0, 1)
    local y = drop(x)
    assert.is_near(1, y:mean():item(), 0.041) -- 5 standard errors: sqrt(p / (1 - p) / 5000) = 0.0082
    local high, low = y:view(100, 6, 50):max(2), y:view(100, 6, 50):min(2)
    assert.equal(high:bytes(), low:bytes()) -- one value in each channel
    assert.is_true((high:eq(0) + high:eq(atomo.tensor(4 / 3):item())):min():item() == 1)
    y:sum():backward()
    assert.equal(y:detach():bytes(), x.grad:bytes()) -- ones went in: the gradient is the mask
    F.dropout_stream(0, 1)
    assert.equal(y:bytes(), drop(x):bytes())
    assert.equal(0, F.dropout2d(x, 1):abs():max():item())
    drop:eval()
    assert.is_true(drop(x) == x)
    assert.is_true(F.dropout2d(x, 0.5, false) == x)
    fails({"dropout2d: input is [2,3], expected [N,H,W,C]"}, F.dropout2d, atomo.ones(2, 3))
    fails({"Dropout2d: p is 2, expected 0 <= p <= 1"}, nn.Dropout2d, 2)
  end)

  it("BatchNorm2d with relu and residual is the sum of its parts", function()
    local fused, plain = nn.BatchNorm2d(5, {relu = true}), nn.BatchNorm2d(5)
    local x, r = atomo.randn(3, 4, 4, 5), atomo.randn(3, 4, 4, 5)
    local a, b = fused(x, r):detach(), F.relu(plain(x) + r):detach()
    assert.is_true((a - b):abs():max():item() < 1e-5)
    assert.equal(fused.running_var:bytes(), plain.running_var:bytes())
    fused:eval()
    local before = fused.running_mean:bytes()
    fused(x)
    assert.equal(before, fused.running_mean:bytes())
  end)

  it("pooling: NaN wins, the first of equals takes the gradient", function()
    local x = atomo.tensor({1, 0 / 0, 2, 3}):reshape(1, 2, 2, 1)
    local y = F.max_pool2d(x, 2):item()
    assert.is_true(y ~= y)
    local same = atomo.param(atomo.ones(1, 2, 2, 1))
    F.max_pool2d(same, 2):sum():backward()
    assert.same({1, 0, 0, 0}, same.grad:reshape(4):totable())
  end)

  it("accuracy counts the largest logit", function()
    local logits = atomo.tensor {{1, 2, 0}, {5, 1, 1}, {0, 0, 1}, {1, 1, 1}}
    assert.equal(0.75, F.accuracy(logits, atomo.tensor({1, 0, 1, 0}, "i32")))
    assert.equal(0.75, F.accuracy(logits, atomo.tensor {{0.2, 0.8, 0}, {0.9, 0.1, 0}, {0, 1, 0}, {1, 0, 0}}))
  end)

  it("no weight gradient is computed if none is needed", function()
    local conv = nn.Conv2d(2, 3, 3)
    conv.weight.requires_grad = nil
    local x = atomo.param(atomo.randn(1, 4, 4, 2))
    conv(x):sum():backward()
    assert.is_nil(conv.weight.grad)
    assert.truthy(x.grad and conv.bias.grad)
  end)
end)

describe("misuse", function()
  local x = atomo.zeros(2, 8, 8, 3)
  it("names layer, argument and both shapes", function()
    fails({"conv2d: weight is [16,3,3,8], input [2,8,8,3] has 3 channels, expected 8"}, F.conv2d, x,
      atomo.zeros(16, 3, 3, 8))
    fails({"conv2d: x has shape [2,3], expected 4 dimensions"}, F.conv2d, atomo.zeros(2, 3), atomo.zeros(16, 3, 3, 8))
    fails({"conv2d", "[2,8,8,3]", "[4,9,9,3]"}, F.conv2d, x, atomo.zeros(4, 9, 9, 3))
    fails({"conv2d: bias is [5]", "expected [4]"}, F.conv2d, x, atomo.zeros(4, 3, 3, 3), atomo.zeros(5))
    fails({"2 groups do not divide", "[2,8,8,3]"}, F.conv2d, x, atomo.zeros(4, 3, 3, 3), nil, {groups = 2})
    fails({"conv2d: input is i32, expected f32"}, F.conv2d, atomo.zeros(1, 1, 1, 1, "i32"), atomo.zeros(1, 1, 1, 1))
    fails({"conv2d: weight is missing"}, F.conv2d, x)
    fails({"linear: weight is [4,5], input is [2,3]", "its last size is 3, expected 5"}, F.linear, atomo.zeros(2, 3),
      atomo.zeros(4, 5))
    fails({"batch_norm: weight is [4], input is [2,8,8,3]"}, nn.BatchNorm2d(4), x)
    fails({"batch_norm: residual is [1], input is [2,8,8,3]"}, nn.BatchNorm2d(3), x, atomo.zeros(1))
    fails({"batch_norm: input is [1,1,1,3]", "more than 1 value"}, nn.BatchNorm2d(3), atomo.zeros(1, 1, 1, 3))
    fails({"max_pool2d: input [2,8,8,3] is smaller than the kernel {9,9}"}, F.max_pool2d, x, 9)
    fails({"avg_pool2d: input has shape [3]"}, F.avg_pool2d, atomo.zeros(3), 2)
    fails({"softmax", "dimension 4"}, F.softmax, atomo.zeros(2, 3), 4)
    fails({"Flatten: input is [3]"}, nn.Flatten(), atomo.zeros(3))
  end)

  it("of options is refused by name", function()
    fails({"Conv2d: unknown option 'strid'", "stride"}, nn.Conv2d, 3, 4, 3, {strid = 2})
    fails({"conv2d: stride is 0, expected a whole number >= 1"}, F.conv2d, x, atomo.zeros(1, 1, 1, 3), nil,
      {stride = 0})
    fails({"padding is {1, nil}"}, F.conv2d, x, atomo.zeros(1, 1, 1, 3), nil, {padding = {1}})
    fails({"in_channels is 0"}, nn.Conv2d, 0, 4, 3)
    fails({"kernel_size is nil"}, nn.Conv2d, 3, 4)
    fails({"3 groups do not divide 4 input"}, nn.Conv2d, 4, 6, 3, {groups = 3})
    fails({"Linear: out_features is 2.5"}, nn.Linear, 3, 2.5)
    fails({"dropout: p is 1.5, expected 0 <= p <= 1"}, F.dropout, x, 1.5)
    fails({"Dropout: p is nan"}, nn.Dropout, 0 / 0)
    fails({"padding 2 is more than half of kernel 3"}, nn.MaxPool2d, 3, {padding = 2})
    fails({"BatchNorm2d: momentum is 2"}, nn.BatchNorm2d, 3, {momentum = 2})
    fails({"unknown option 'afine'", "affine"}, nn.BatchNorm2d, 3, {afine = false})
    fails({'"foo", expected auto, direct, winograd, onednn or gemm'}, nn.set_conv_engine, "foo")
  end)

  it("labels: position and value, type and count", function()
    local logits = atomo.zeros(3, 5)
    fails({"cross_entropy: label 5 at position 2, expected 0 to 4"}, F.cross_entropy, logits,
      atomo.tensor({0, 5, 1}, "i32"))
    fails({"label -1 at position 3"}, F.accuracy, logits, atomo.tensor({0, 1, -1}, "i32"))
    fails({"labels is [2], logits is [3,5]"}, F.cross_entropy, logits, atomo.tensor({0, 1}, "i32"))
    fails({"labels is f32, expected i32"}, F.cross_entropy, logits, atomo.zeros(3))
    fails({"empty batch"}, F.cross_entropy, atomo.zeros(0, 5), atomo.zeros(0, "i32"))
  end)

  it("is reported at the user's line", function()
    local ok, message = pcall(function() return F.linear(atomo.zeros(2, 3), atomo.zeros(4, 5)) end)
    assert.is_false(ok)
    assert.truthy(message:find("nn_module_spec.lua:", 1, true))
  end)
end)

describe("empty batches", function()
  it("pass through forward and backward", function()
    local net = nn.Sequential {nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)}
    local y = net(atomo.zeros(0, 8, 8, 3))
    assert.same({0, 2}, y:shape())
    y:sum():backward()
    assert.equal(0, net[1].weight.grad:abs():sum():item())
  end)
end)

describe("models", function()
  require("support.one_thread")(lazy_setup, lazy_teardown)
  -- counted in PyTorch; they are those of the published networks (CIFAR stems)
  local counts = {
    {"lenet", "lenet", 657080}, {"resnet", "resnet20", 272474}, {"resnet", "resnet18", 11173962},
    {"vgg", "vgg11", 9756426}, {"mlp", "mlp", 1707274}, {"resnet", "resnet34", 21282122},
  }
  for _, c in ipairs(counts) do
    it(("%s has %d parameters"):format(c[2], c[3]), function()
      local net = require("models." .. c[1])[c[2]] {classes = 10}
      assert.equal(c[3], net:num_parameters())
      net:eval()
      local y = atomo.no_grad(function() return net(atomo.zeros(1, 32, 32, 3)) end)
      assert.same({1, 10}, y:shape())
    end)
  end

  it("learn: the loss of a small ResNet-20 batch falls, and the warm loop stops calling malloc", function()
    atomo.manual_seed(3)
    local net = require("models.resnet").resnet20 {classes = 4}
    local opt = atomo.optim.sgd {params = net:parameters(), lr = 0.05, momentum = 0.9}
    local x, labels = atomo.randn(8, 16, 16, 3), atomo.tensor({0, 1, 2, 3, 0, 1, 2, 3}, "i32")
    local function step()
      return atomo.scope(function()
        opt:zero_grad()
        local loss = F.cross_entropy(net(x), labels)
        loss:backward()
        opt:step()
        return loss:item()
      end)
    end
    local first = step()
    step()
    local allocations, last = atomo.mem().system_allocs, nil
    for _ = 1, 10 do last = step() end
    assert.equal(allocations, atomo.mem().system_allocs)
    assert.is_true(last < 0.5 * first, ("loss %g -> %g"):format(first, last))
  end)
end)
