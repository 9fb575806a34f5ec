-- Training in bf16: what of a step runs in it, the option and its saved value, the lines of a script, and networks that
-- end near where fp32 ends.
-- test: slow
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local root = require "support.root"
local spawn = require "support.spawn"
local spec = spawn.specs(it, pending)
local nn = atomo.nn

--- Trains a small network; see() is called in its forward, more: further options of atomo.train.
local function train(see, more)
  atomo.manual_seed(1)
  local x = atomo.randn(24, 6)
  local data = atomo.data.tensors {x = x, y = x:narrow(2, 1, 1):clone(), batch = 8}
  local model = nn.Sequential {nn.Linear(6, 16), nn.Tanh(), function(h)
    see()
    return h
  end, nn.Linear(16, 1)}
  local o = {model = model, data = {train = data, test = data}, loss = atomo.F.mse_loss, accuracy = false, quiet = true,
    optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.1}}
  for key, value in pairs(more) do o[key] = value end
  return atomo.train(o), model
end

describe("atomo.train", function()
  it("runs forward, loss and evaluation in its precision, and what else a step does in that which is set", function()
    for _, name in ipairs {"bf16", "fp32"} do
      local inside, calls, after = {}, 0, nil
      train(function()
        calls = calls + 1
        inside[atomo.precision()] = true
      end, {precision = name, on_gradients = function() after = atomo.precision() end})
      assert.same({[name] = true}, inside)
      assert.equal(6, calls) -- 3 steps, 3 batches of the test
      assert.equal("fp32", after)
    end
    assert.equal("fp32", atomo.precision())
  end)

  it("takes the precision that is set when it begins", function()
    local seen
    atomo.set_precision "bf16"
    local ok, why = pcall(train, function() seen = atomo.precision() end, {})
    atomo.set_precision "fp32"
    assert.is_true(ok, why)
    assert.equal("bf16", seen)
  end)

  it("rounds something, and refuses another name", function()
    local a, b = train(function() end, {precision = "bf16"}), train(function() end, {precision = "fp32"})
    assert.is_true(a.loss ~= b.loss and math.abs(a.loss - b.loss) < 0.02 * b.loss)
    local ok, text = pcall(train, function() end, {precision = "half"})
    assert.is_false(ok)
    assert.is_truthy(text:find("train: precision: 'half', a string, expected 'fp32' or 'bf16'", 1, true), text)
  end)
end)

describe("a network that is trained in bf16", function()
  local verse = {}
  for i = 1, 120 do verse[i] = ("%d green bottles hanging on the wall"):format(i) end
  verse = table.concat(verse, "\n")

  --- Returns the test loss of a language model after some steps.
  local function test_loss(name, precision, seed)
    atomo.manual_seed(seed)
    local text = atomo.text.of(verse)
    local model = require("models." .. name)[name] {vocab = text.vocab, width = 32, layers = 2, heads = 2, length = 32}
    local function loader(tokens)
      return atomo.text.loader {tokens = tokens, batch = 8, length = 32, seed = seed, shuffle = true}
    end
    local epochs, lr, train_loader = 12, 5e-3, loader(text.train)
    return atomo.train({model = model, data = {train = train_loader, test = loader(text.test)}, quiet = true,
      precision = precision, optimizer = atomo.optim.adamw {params = model:parameters(), lr = lr}, epochs = epochs,
      schedule = atomo.schedule.cosine {lr = lr, steps = epochs * train_loader.steps}, eval_every = epochs}).test_loss
  end

  --- Returns the test loss of a network with convolutions and batch norms.
  local function image_loss(precision, seed)
    atomo.manual_seed(seed)
    local data = atomo.data.synthetic {train = 400, test = 100}
    local function loader(set, training)
      return atomo.data.loader {set = set, batch = 20, seed = seed, shuffle = training, mean = data.mean,
        std = data.std}
    end
    local function layer(from, to, stride)
      return nn.Sequential {nn.Conv2d(from, to, 3, {padding = 1, stride = stride, bias = false}),
        nn.BatchNorm2d(to, {relu = true})}
    end
    local model = nn.Sequential {layer(3, 16, 2), layer(16, 16, 1), layer(16, 32, 2), layer(32, 32, 1),
      nn.GlobalAvgPool(), nn.Linear(32, 10)}
    return atomo.train({model = model, data = {train = loader(data.train, true), test = loader(data.test)},
      quiet = true, precision = precision, epochs = 4, eval_every = 4,
      optimizer = atomo.optim.adam {params = model:parameters(), lr = 0.01}}).test_loss
  end

  it("ends where fp32 ends: convolutions, 3 seeds", function()
    local fp32, bf16 = 0, 0
    for seed = 1, 3 do fp32, bf16 = fp32 + image_loss("fp32", seed), bf16 + image_loss("bf16", seed) end
    assert.is_true(fp32 < 3 * 1.9, ("it learns nothing: %g"):format(fp32)) -- log(10) is 2.3
    assert.is_true(math.abs(bf16 - fp32) < 0.05 * fp32, ("%g, fp32 %g"):format(bf16, fp32))
  end)

  for _, name in ipairs {"transformer", "lstm"} do
    it(("ends where fp32 ends: %s, 3 seeds"):format(name), function()
      local sums, most = {fp32 = 0, bf16 = 0}, 0
      for seed = 1, 3 do
        local fp32, bf16 = test_loss(name, "fp32", seed), test_loss(name, "bf16", seed)
        sums.fp32, sums.bf16 = sums.fp32 + fp32, sums.bf16 + bf16
        most = math.max(most, fp32)
      end
      assert.is_true(most < 0.8, ("it learns nothing: %g"):format(most)) -- log(vocab) is 3.3
      assert.is_true(math.abs(sums.bf16 - sums.fp32) < 0.03 * sums.fp32, ("%g, fp32 %g"):format(sums.bf16, sums.fp32))
    end)
  end
end)

describe("train_lm.lua --precision bf16", function()
  local dir
  setup(function() dir = checkpoints.path() end)
  teardown(checkpoints.remove_all)

  local function run(options)
    local small = "scripts/train_lm.lua --width 16 --layers 1 --heads 2 --length 16 --sample 0 --eval-every 0 "
    local out, code = spawn.host(root .. small .. ("--save %s %s"):format(dir, options), {timeout = 60})
    assert.equal(0, code, out)
    return out
  end

  local function has(out, text) assert.is_truthy(out:find(text, 1, true), ("expected %q in:\n%s"):format(text, out)) end

  spec("says how it multiplies, saves the setting, and says when it is resumed in another precision", function()
    local _, fast = require("atomo.autograd.precision").describe()
    local out = run "--stop-after 2 --precision bf16"
    has(out, (fast and "" or "warning: ") .. "precision: bf16 by ")
    out = run(("--stop-after 3 --repeat %s --resume auto"):format(dir))
    has(out, "precision: bf16 by ")
    assert.is_nil(out:find("resumed with other settings", 1, true), out)
    out = run(("--stop-after 4 --resume %s"):format(dir))
    has(out, "resumed with other settings than it was saved with: precision bf16 -> fp32")
    assert.is_nil(out:find("bf16 by", 1, true), out)
  end)
end)
