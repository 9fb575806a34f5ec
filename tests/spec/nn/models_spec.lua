-- The networks of models/: parameter counts as published (CIFAR stems, 10 classes), shapes, and that every parameter
-- gets a gradient.
-- test: slow
local atomo = require "atomo"
local fails = require "support.fails"
local models = require "models"
local with_file = require "support.with_file"
local nn, F = atomo.nn, atomo.F

local counts = {
  alexnet = 2472266, vgg19 = 20565834, resnet110 = 1730714, resnet50 = 23520842, resnet101 = 42512970,
  resnet152 = 58156618, wide_resnet16_8 = 10961370, wide_resnet28_10 = 36479194, wide_resnet40_2 = 2243546,
  resnet32 = 466906, resnet44 = 661338, resnet56 = 855770, vgg13 = 9941322, vgg16 = 15253578, densenet40_12 = 176122,
  wide_resnet40_4 = 8949210, densenet100_12 = 769162, densenet190_40 = 25624430, mobilenet = 3217226,
}

describe("the number of parameters of", function()
  local kaiming = nn.init.kaiming_normal_
  lazy_setup(function() nn.init.kaiming_normal_ = function(w) return w end end) -- only counted: no values needed
  lazy_teardown(function() nn.init.kaiming_normal_ = kaiming end)
  for name, count in pairs(counts) do
    it(name, function() assert.equal(count, models.open(name, {classes = 10}):num_parameters()) end)
  end
end)

describe("one step of", function()
  require("support.one_thread")(lazy_setup, lazy_teardown)
  for _, name in ipairs {"alexnet", "densenet40_12", "mobilenet", "resnet50", "wide_resnet16_4"} do
    it(name .. " reaches every parameter", function()
      atomo.manual_seed(2)
      local net = models.open(name, {classes = 7})
      atomo.scope(function()
        local y = net(atomo.randn(2, 32, 32, 3))
        assert.same({2, 7}, y:shape())
        F.cross_entropy(y, atomo.tensor({1, 6}, "i32")):backward()
      end)
      for _, entry in ipairs(net:named_parameters()) do
        assert.is_true(entry[2].grad ~= nil and entry[2].grad:norm_value() > 0, entry[1])
      end
    end)
  end
end)

describe("language models", function()
  local x = atomo.tensor({{1, 2, 3, 4, 5}, {5, 4, 3, 2, 1}}, "i32")
  local options = {vocab = 11, width = 12, layers = 2, heads = 3, length = 8}

  it("have the parameters of their layers", function()
    local w, v = 12, 11
    local gpt = require("models.transformer").transformer(options)
    assert.equal(2 * v * w + 8 * w + 2 * (12 * w * w + 13 * w) + 2 * w, gpt:num_parameters())
    local tied = require("models.gpt2").gpt2(options)
    assert.equal(gpt:num_parameters() - v * w, tied:num_parameters())
    local lstm = require("models.lstm").lstm(options)
    assert.equal(v * w + 2 * (4 * w * (2 * w + 2)) + v * w + v, lstm:num_parameters())
  end)

  for _, name in ipairs {"transformer", "gpt2", "lstm"} do
    it(name .. " does not see what comes later, and learns a sequence", function()
      atomo.manual_seed(3)
      local net = require("models." .. name)[name](options)
      local y = net(x)
      assert.same({2, 5, 11}, y:shape())
      local changed = x:clone()
      changed:narrow(2, 4, 2):fill_(9)
      local early = function(t) return t:detach():narrow(2, 1, 3):contiguous():bytes() end
      assert.equal(early(y), early(net(changed)))
      local opt = atomo.optim.adam {params = net:parameters(), lr = 0.03}
      local first, last
      for i = 1, 30 do
        atomo.scope(function()
          opt:zero_grad()
          local loss = F.cross_entropy(net(x:narrow(2, 1, 4):contiguous()), x:narrow(2, 2, 4))
          loss:backward()
          opt:step()
          if i == 1 then first = loss:item() end
          last = loss:item()
        end)
      end
      assert.is_true(last < 0.3 * first, ("loss %g -> %g"):format(first, last))
    end)
  end

  for _, name in ipairs {"transformer", "gpt2"} do
    it(name .. " gives the same gradients under nn.Checkpoint", function()
      local function gradients(checkpoint)
        atomo.manual_seed(3)
        local net = require("models." .. name)[name] {vocab = 11, width = 12, layers = 2, heads = 3, length = 8,
          dropout = 0.2, checkpoint = checkpoint}
        F.dropout_stream(0, 1)
        F.cross_entropy(net(x), x):backward()
        local text = {}
        for i, p in ipairs(net:parameters()) do text[i] = p.grad:bytes() end
        return table.concat(text)
      end
      assert.is_true(gradients(false) == gradients(true))
    end)
  end

  it("gpt2 has GPT-2 small's parameters", function()
    assert.equal(124439808, require("models.gpt2").gpt2():num_parameters())
  end)

  it("gpt2 without logits has the loss, accuracy and gradients of its logits", function()
    local function step(logits)
      atomo.manual_seed(3)
      local net = require("models.gpt2").gpt2 {vocab = 11, width = 12, layers = 2, heads = 3, length = 8,
        logits = logits}
      local loss, accuracy = F.cross_entropy, F.accuracy
      if not logits then loss, accuracy = net:objective() end
      local y = net(x)
      assert.equal(logits and 11 or 12, y:size(3))
      local value = loss(y, x)
      value:backward()
      return value:item(), net, accuracy(y, x)
    end
    local one, net_one, accuracy_one = step(true)
    local two, net_two, accuracy_two = step(false)
    assert.is_true(math.abs(one - two) < 1e-6)
    assert.equal(accuracy_one, accuracy_two)
    for i, p in ipairs(net_one:parameters()) do
      local g = net_two:parameters()[i].grad
      assert.is_true((p.grad - g):norm_value() <= 1e-5 * p.grad:norm_value() + 1e-8)
    end
  end)

  it("gpt2 refuses unknown options and heads that do not divide its width", function()
    local gpt2 = require("models.gpt2").gpt2
    fails("gpt2: unknown option 'depth'", gpt2, {depth = 2})
    fails("gpt2: 5 heads do not divide width 12", gpt2, {width = 12, heads = 5})
  end)

  it("gpt2 reads checkpoints with PyTorch's names, prefixes, masks and transposed weights", function()
    local gpt2 = require("models.gpt2").gpt2
    local net, again = gpt2(options), gpt2(options)
    with_file("", ".pt", function(path)
      atomo.torch.save(path, net)
      local entries = require("atomo.nn.torch.file").open(path).tensors
      local shapes = {}
      for _, entry in ipairs(entries) do shapes[entry.name] = table.concat(entry.spec.size, "x") end
      assert.equal("12x36", shapes["h.1.attn.c_attn.weight"]) -- [in, out], as PyTorch's Conv1D
      assert.equal("48x12", shapes["h.0.mlp.c_proj.weight"])
      assert.equal("11x12", shapes["wte.weight"])
      assert.equal("11x12", shapes["lm_head.weight"])
      assert.equal("names", atomo.torch.load(path, again).how)
      assert.equal(net(x):bytes(), again(x):bytes())
    end)
    local whole = nn.Module:extend "Gpt2LmHead"() -- as of GPT2LMHeadModel, with the masks that old files have
    whole.transformer, whole.lm_head = gpt2(options), nn.Linear(12, 11, {bias = false})
    whole.transformer.lm_head = nil
    whole.lm_head.weight = whole.transformer.wte.weight
    whole.transformer.h[1].attn:register_buffer("bias", atomo.ones(1, 1, 8, 8))
    with_file("", ".pt", function(path)
      atomo.torch.save(path, whole)
      local found = atomo.torch.load(path, again)
      assert.same({"names", {}, {}}, {found.how, found.missing, found.unexpected})
      assert.equal(whole.transformer.wte.weight:bytes(), again.lm_head.weight:bytes())
      assert.equal(whole.transformer.h[2].mlp.c_fc.weight:bytes(), again.h[2].mlp.c_fc.weight:bytes())
    end)
  end)

  it("say when a text is too long", function()
    for _, name in ipairs {"transformer", "gpt2"} do
      local ok, message = pcall(require("models." .. name)[name](options), atomo.zeros(1, 9, "i32"))
      assert.is_false(ok)
      assert.truthy(message:find("input has 9 positions, the model 8", 1, true))
    end
  end)
end)
