-- Networks take channels, size and classes from the data: MNIST trains with every family of models/ that can, the
-- others say why; sizes other than 32x32.
-- test: slow
local atomo = require "atomo"
local fails = require "support.fails"
local folders = require "support.folders"
local models = require "models"
local one_thread = require "support.one_thread"

--- Files of n images in MNIST's format, with a label's row bright.
local function mnist_files(n)
  local function be(v) return string.char(0, 0, math.floor(v / 256), v % 256) end
  local pixels, labels = {}, {}
  for i = 1, n do
    local label = i % 10
    labels[i] = string.char(label)
    pixels[i] = ("\0"):rep(28 * 2 * label) .. ("\255"):rep(28 * 2) .. ("\0"):rep(28 * (26 - 2 * label))
  end
  local images = "\0\0\8\3" .. be(n) .. be(28) .. be(28) .. table.concat(pixels)
  labels = "\0\0\8\1" .. be(n) .. table.concat(labels)
  return {["train-images-idx3-ubyte"] = images, ["train-labels-idx1-ubyte"] = labels,
    ["t10k-images-idx3-ubyte"] = images, ["t10k-labels-idx1-ubyte"] = labels}
end

describe("MNIST's images, 28x28x1,", function()
  one_thread(lazy_setup, lazy_teardown)

  for _, name in ipairs {"lenet", "mlp", "resnet20", "densenet40_12", "mobilenet", "wide_resnet16_4"} do
    it("train " .. name, function()
      folders.with(mnist_files(20), function(path)
        atomo.manual_seed(1)
        local d = atomo.data.open(path)
        local model = models.open(name, {classes = d.classes, shape = d.shape})
        local seen
        atomo.train {model = model, quiet = true, max_steps = 1, eval_every = 0,
          data = atomo.data.loader {set = d.train, batch = 4, mean = d.mean, std = d.std},
          optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01},
          on_step = function(info) seen = info.loss end}
        assert.is_true(seen > 0 and seen < 20, tostring(seen))
      end)
    end)
  end

  it("are too small for alexnet and vgg, which say so by name", function()
    for _, name in ipairs {"alexnet", "vgg11", "vgg13", "vgg16", "vgg19"} do
      fails({name .. ": its strides and pooling layers leave nothing of images of 28 x 28", "or larger"}, models.open,
        name, {shape = {28, 28, 1}})
    end
  end)
end)

describe("a network", function()
  it("accepts the smallest images that it names, and other sizes", function()
    for name, shapes in pairs {lenet = {{16, 16, 1}, {40, 33, 2}}, alexnet = {{29, 29, 1}, {70, 64, 2}},
      vgg11 = {{32, 32, 4}, {64, 40, 1}}, densenet40_12 = {{4, 4, 1}, {9, 7, 2}}, resnet20 = {{1, 1, 1}, {9, 17, 2}},
      mlp = {{5}, {2, 3, 4}}, mobilenet = {{1, 1, 1}}, wide_resnet16_4 = {{3, 5, 2}}} do
      for _, shape in ipairs(shapes) do
        local net = models.open(name, {classes = 3, shape = shape}):eval()
        atomo.no_grad(function() assert.same({2, 3}, net(atomo.randn(2, unpack(shape))):shape()) end)
      end
    end
  end)

  it("refuses smaller images and other shapes", function()
    for name, least in pairs {lenet = 16, alexnet = 29, vgg11 = 32, densenet40_12 = 4} do
      fails({name, ("images of %d x %d, expected %d x %d"):format(least, least - 1, least, least)}, models.open, name,
        {shape = {least, least - 1, 3}})
    end
    for _, name in ipairs {"lenet", "resnet20", "resnet50", "mobilenet", "wide_resnet28_10", "densenet100_12"} do
      fails({name .. ": takes images", "the data have the shape {4}"}, models.open, name, {shape = {4}})
    end
  end)
end)
