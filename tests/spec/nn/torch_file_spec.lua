-- atomo.torch: files of torch.save read and written, layouts, names, and files that are damaged or something else.
-- tests/golden/make_torch.py makes the files; torch_python_spec.lua compares with PyTorch itself.
local atomo = require "atomo"
local fails = require "support.fails"
local nn = atomo.nn
local pickle = require "atomo.nn.torch.pickle"
local root = require "support.root"
local read = require("support.shell").content
local with_file = require "support.with_file"
local zip = require "atomo.nn.torch.zip"

local golden = root .. "tests/golden/"

--- The model of torch_small.pt.
local function small(options)
  options = options or {}
  return nn.Sequential {nn.Conv2d(2, 3, {1, 2}), nn.BatchNorm2d(3, {relu = true}), nn.Flatten(),
    nn.Linear(12, options.width or 4), nn.Linear(options.width or 4, 4, {bias = false})}
end

--- Are all tensors of two models bit-identical?
local function same(a, b)
  local of_b = b:state_dict()
  for name, t in pairs(a:state_dict()) do assert.equal(t:bytes(), of_b[name]:bytes(), name) end
end

local function numbers(t) return t:contiguous():view(-1):totable() end

describe("atomo.torch", function()
  it("reads a state_dict within a checkpoint: strides, f16, f64, kernels, columns after Flatten", function()
    local model = small()
    local got = atomo.torch.load(golden .. "torch_small.pt", model)
    assert.same({"names", 9}, {got.how, got.loaded})
    assert.same({{}, {}, {}}, {got.missing, got.unexpected, got.wrong})
    -- [3,2,1,2] in PyTorch is k / 8 for k = o * 4 + i * 2 + x; here [o, 1, x, i]
    for o = 1, 3 do
      for x = 1, 2 do
        for i = 1, 2 do
          assert.equal(((o - 1) * 4 + (i - 1) * 2 + x - 1) / 8, model[1].weight:get(o, 1, x, i))
        end
      end
    end
    assert.same({12 / 8, 13 / 8, 14 / 8}, numbers(model[1].bias))
    assert.same({21 / 8, 22 / 8, 23 / 8}, numbers(model[2].running_mean))
    -- columns c, h * w in PyTorch: k = 27 + row * 12 + c * 4 + p; here p, c
    for row = 1, 4 do
      for p = 0, 3 do
        for c = 0, 2 do
          assert.equal((27 + (row - 1) * 12 + c * 4 + p) / 8, model[4].weight:get(row, p * 3 + c + 1))
        end
      end
    end
    assert.equal(79 / 8, model[5].weight:get(1, 1))
  end)

  it("writes files as read: names, order, counts of batches, bits", function()
    with_file("", ".pt", function(path)
      local model, again = small(), small()
      atomo.torch.load(golden .. "torch_small.pt", model)
      atomo.torch.save(path, model)
      assert.equal("names", atomo.torch.load(path, again).how)
      same(model, again)
      assert.truthy(read(path):find("1.num_batches_tracked", 1, true))
      with_file("", ".pt", function(other)
        atomo.torch.save(other, again) -- the count that PyTorch had is kept from file to file
        assert.equal(read(path), read(other))
        atomo.torch.save(other, again, {like = golden .. "torch_small.pt"})
        assert.equal(read(path), read(other))
        atomo.torch.save(other, small())
        assert.not_equal(read(path), read(other))
      end)
    end)
  end)

  it("writes a shared tensor once, under its names, and refuses two values for it", function()
    local function tied(share)
      local model = nn.Sequential {nn.Embedding(7, 5), nn.Linear(5, 7, {bias = false})}
      if share then model[2].weight = model[1].weight end
      return model
    end
    with_file("", ".pt", function(path)
      local model, again = tied(true), tied(true)
      atomo.torch.save(path, model)
      assert.is_nil(read(path):find("data/1", 1, true))
      atomo.torch.load(path, again)
      same(model, again)
      atomo.torch.load(path, tied(false))
      atomo.torch.save(path, tied(false))
      fails({path, "two values for one tensor"}, atomo.torch.load, path, again)
      same(model, again)
    end)
  end)

  it("matches other names by order, and says so", function()
    local Other = nn.Module:extend "Other"
    function Other:init()
      self.stem = nn.Conv2d(2, 3, {1, 2})
      self.norm = nn.BatchNorm2d(3)
      self.head = nn.Linear(12, 4)
      self.out = nn.Linear(4, 4, {bias = false})
    end
    local model, other = small(), Other()
    atomo.torch.load(golden .. "torch_small.pt", model)
    assert.equal("order", atomo.torch.load(golden .. "torch_small.pt", other).how)
    assert.equal(model[1].weight:bytes(), other.stem.weight:bytes())
    assert.equal(model[4].weight:bytes(), other.head.weight:bytes())
    assert.equal(model[5].weight:bytes(), other.out.weight:bytes())
    with_file("", ".pt", function(path)
      atomo.torch.save(path, other, {like = golden .. "torch_small.pt"})
      assert.truthy(read(path):find("4.weight", 1, true))
      assert.is_nil(read(path):find("stem", 1, true))
      atomo.torch.save(path, other)
      assert.truthy(read(path):find("norm.num_batches_tracked", 1, true))
    end)
  end)

  it("does not match a weight with a bias by order", function()
    local function class(first, second)
      local Net = nn.Module:extend "Net"
      function Net:init()
        self[first] = atomo.param(atomo.randn(3))
        self[second] = atomo.param(atomo.randn(3))
      end
      return Net()
    end
    with_file("", ".pt", function(path)
      atomo.torch.save(path, class("a_weight", "a_bias"))
      assert.equal("order", atomo.torch.load(path, class("b_weight", "b_bias")).how)
      fails({"missing: b_bias, b_weight", "unexpected: a_weight, a_bias"}, atomo.torch.load, path,
        class("b_bias", "b_weight"))
    end)
  end)

  it("strips wrappers' prefixes from names, and knows torchvision's for ResNets", function()
    local Wrapper = nn.Module:extend "Wrapper"
    function Wrapper:init(module) self.module = module end
    with_file("", ".pt", function(path)
      local model, again = small(), small()
      atomo.torch.save(path, Wrapper(model))
      assert.truthy(read(path):find("module.0.weight", 1, true))
      assert.equal("names", atomo.torch.load(path, again).how)
      same(model, again)
      local resnet = require("models").open("resnet20", {classes = 10})
      atomo.torch.save(path, resnet)
      assert.truthy(read(path):find("layer2.0.downsample.0.weight", 1, true))
      assert.truthy(read(path):find("layer2.0.downsample.1.num_batches_tracked", 1, true))
      local other = require("models").open("resnet20", {classes = 10})
      assert.equal("names", atomo.torch.load(path, other).how)
      same(resnet, other)
    end)
  end)

  it("keeps every kind of layer's tensors through a file", function()
    local layers = {
      nn.ConvTranspose2d(4, 6, 3), nn.Conv2d(4, 6, {3, 2}, {groups = 2}), nn.GroupNorm(2, 6), nn.LayerNorm {4, 5, 3},
      nn.LSTM(3, 4, {num_layers = 2, bidirectional = true}), nn.GRU(3, 4), nn.MultiheadAttention(8, 2),
      nn.MultiheadAttention(8, 2, {kdim = 4}), nn.BatchNorm2d(3, {momentum = false}),
      nn.BatchNorm2d(3, {affine = false}), nn.Checkpoint(nn.Linear(2, 2)),
      nn.Sequential {nn.Conv2d(3, 2, 1), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 2)},
    }
    for i, layer in ipairs(layers) do
      for _, t in pairs(layer:state_dict()) do atomo.no_grad(function() t:uniform_(1, 9) end) end
      local before = {}
      for name, t in pairs(layer:state_dict()) do before[name] = t:bytes() end
      with_file("", ".pt", function(path)
        atomo.torch.save(path, layer)
        for _, t in pairs(layer:state_dict()) do atomo.no_grad(function() t:zero_() end) end
        assert.equal("names", atomo.torch.load(path, layer).how, i)
        for name, t in pairs(layer:state_dict()) do
          if name ~= "num_batches_tracked" then assert.equal(before[name], t:bytes(), i .. name) end
        end
        assert.is_nil(read(path):find("body.weight", 1, true))
      end)
    end
  end)

  it("asks for the channels of images that a model flattens, and uses the option", function()
    local function mlp() return nn.Sequential {nn.Flatten(), nn.Linear(12, 2), nn.Linear(2, 2)} end
    with_file("", ".pt", function(path)
      local model, again = mlp(), mlp()
      fails({"joins its images to rows", "1.Linear has 12 columns", "channels = 3"}, atomo.torch.save, path, model)
      atomo.torch.save(path, model, {channels = 3})
      atomo.torch.load(path, again, {channels = 3})
      same(model, again)
      atomo.torch.load(path, again, {channels = 1})
      for p = 0, 3 do
        for c = 0, 2 do
          assert.equal(model[2].weight:get(1, p * 3 + c + 1), again[2].weight:get(1, c * 4 + p + 1))
        end
      end
      atomo.torch.load(path, again, {flatten = {["1"] = 3}})
      same(model, again)
      fails("12 columns, which are not images of 5 channels", atomo.torch.load, path, again, {channels = 5})
      fails("channels is 0, expected a whole number >= 1", atomo.torch.load, path, again, {channels = 0})
      fails("flatten is a number", atomo.torch.load, path, again, {flatten = 3})
    end)
  end)

  it("names tensors that do not fit, changes nothing then, and loads the others with strict = false", function()
    local model = small {width = 6}
    local before = model[1].weight:bytes()
    fails({"torch_small.pt does not fit", "wrong shape: 4.weight is [4,12], expected [6,12]", "5.weight"},
      atomo.torch.load, golden .. "torch_small.pt", model)
    assert.equal(before, model[1].weight:bytes())
    local got = atomo.torch.load(golden .. "torch_small.pt", model, {strict = false})
    assert.same({6, 3}, {got.loaded, #got.wrong})
    assert.not_equal(before, model[1].weight:bytes())
    local larger = small()
    larger:add(nn.Linear(4, 1))
    fails({"missing: 6.weight, 6.bias"}, atomo.torch.load, golden .. "torch_small.pt", larger)
    local less = nn.Sequential {nn.Conv2d(2, 3, {1, 2})}
    fails({"unexpected: 1.weight, 1.bias, 1.running_mean, 1.running_var, 4.weight, 4.bias, and 1 more"},
      atomo.torch.load, golden .. "torch_small.pt", less)
    fails("strict is 1, expected true or false", atomo.torch.load, golden .. "torch_small.pt", less, {strict = 1})
    fails("unknown option 'like'", atomo.torch.load, golden .. "torch_small.pt", less, {like = "x"})
    fails("model is a string", atomo.torch.load, golden .. "torch_small.pt", "resnet18")
    fails("path is a table", atomo.torch.save, {}, less)
    fails("no parameters", atomo.torch.save, "x.pt", nn.ReLU())
    fails({"torch: ", "/nowhere/x.pt"}, atomo.torch.load, "/nowhere/x.pt", less)
    fails("/nowhere/x.pt", atomo.torch.save, "/nowhere/x.pt", less)
  end)

  it("refuses a file that is no state_dict, naming its kind", function()
    local model = small()
    fails({"torch_module.pt", "it holds a Linear, not a state_dict", "torch.save(model.state_dict()"}, atomo.torch.load,
      golden .. "torch_module.pt", model)
    fails({"torch_legacy.pt", "before PyTorch 1.6"}, atomo.torch.load, golden .. "torch_legacy.pt", model)
    fails({"zip archive without data.pkl"}, atomo.torch.load, golden .. "npz_stored.npz", model)
    with_file("hello", ".pt", function(path)
      fails({path, "no file of torch.save"}, atomo.torch.load, path, model)
    end)
    with_file("", ".pt", function(path) fails({path, "no file of torch.save"}, atomo.torch.load, path, model) end)
  end)

  it("refuses tensors that lie outside their storage, and storages that are damaged, missing or unknown", function()
    local model = nn.Linear(2, 2, {bias = false})
    --- A file of one tensor, weight. o: changes of what its pickle says.
    local function attempt(texts, o)
      local head = "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n" .. (o.class or "FloatStorage") ..
        "\nX\1\0\0\0" .. (o.key or "0") .. "X\3\0\0\0cpuK" .. string.char(o.count or 4) .. "tQ" ..
        (o.offset or "K\0") .. "(K\2K\2t(" .. (o.stride or "K\2K\1") .. "t\137}" ..
        (o.metadata or "") .. "tR"
      local data = "\128\2}X\6\0\0\0weight" .. head .. "s."
      with_file("", ".pt", function(path)
        zip.write(path, {{name = "x/data.pkl", contents = data},
          {name = "x/data/0", contents = ("\0\0\128\63"):rep(4)}})
        if o.bytes then
          local bytes = read(path):gsub("\128%?", "\129?", 1)
          local file = io.open(path, "wb")
          file:write(bytes)
          file:close()
        end
        if not texts then return atomo.torch.load(path, model) end
        fails(texts, atomo.torch.load, path, model)
        fails(path, atomo.torch.load, path, model)
      end)
    end
    attempt(nil, {})
    assert.same({{1, 1}, {1, 1}}, model.weight:totable())
    attempt(nil, {stride = "K\1K\2"})
    attempt({"'weight' [2,2] reaches element 5 of a storage of 4"}, {offset = "K\1"})
    attempt({"'weight' [2,2] reaches element 5 of a storage of 4"}, {stride = "K\3K\1"})
    attempt({"its description is damaged"}, {offset = "J\255\255\255\255"})
    attempt({"its description is damaged"}, {stride = "K\1"})
    attempt(nil, {metadata = "}"})
    attempt(nil, {metadata = "}X\3\0\0\0neg\137s"})
    attempt({"'weight' cannot be read", "the flag 'neg': in Python, save t.resolve_neg()"},
      {metadata = "}X\3\0\0\0neg\136s"})
    attempt({"the flag 'conj'"}, {metadata = "}X\4\0\0\0conj\136s"})
    attempt({"'x/data/0' has 16 bytes, 5 elements of 4 bytes are expected"}, {count = 5})
    attempt({"'x/data/1', which is not there"}, {key = "1"})
    attempt({"it is of torch ComplexFloatStorage, which is not read"}, {class = "ComplexFloatStorage"})
    attempt({"'x/data/0' is damaged: its checksum is "}, {bytes = true})
  end)

  it("refuses a file that is cut off or damaged anywhere, and then changes nothing", function()
    local bytes, model = read(golden .. "torch_small.pt"), small()
    local before = model[4].weight:bytes()
    local function attempt(damaged, what)
      with_file(damaged, ".pt", function(path)
        local ok, why = pcall(atomo.torch.load, path, model)
        if not ok then
          assert(tostring(why):find(path, 1, true), what .. ": " .. tostring(why))
          assert.is_nil(tostring(why):find "attempt to")
          assert.equal(before, model[4].weight:bytes())
        end
        if ok then atomo.no_grad(function() model[4].weight:fill_(0) end) before = model[4].weight:bytes() end
        return ok
      end)
    end
    for n = 0, #bytes - 1, math.ceil(#bytes / 150) do
      with_file(bytes:sub(1, n), ".pt", function(path)
        fails(path, atomo.torch.load, path, model)
      end)
    end
    for at = 1, #bytes, 13 do
      attempt(bytes:sub(1, at - 1) .. string.char(bit.bxor(bytes:byte(at), 0x55)) .. bytes:sub(at + 1),
        "byte " .. at)
    end
  end)
end)

describe("the restricted pickle", function()
  it("names classes and calls nothing", function()
    local v = pickle.read "\128\2cos\nsystem\nX\4\0\0\0echo\133R."
    assert.same({"object", "os system", "echo"}, {v.kind, v.class, v.args[1]})
    v = pickle.read "\128\4}\148(\140\1a\148K\7\140\1b\148J\255\255\255\255\140\1c\148N\140\1d\148G?\240\0\0\0\0\0\0u."
    assert.same({7, -1, 1}, {pickle.get(v, "a"), pickle.get(v, "b"), pickle.get(v, "d")})
    assert.equal(pickle.none, pickle.get(v, "c"))
  end)

  it("names the fault of a file damaged at any byte", function()
    local whole = "\128\2}q\0(X\1\0\0\0aK\1X\1\0\0\0b]q\1(K\2\136ehesu."
    for n = 0, #whole - 1 do
      local v, why = pickle.read(whole:sub(1, n))
      assert.is_nil(v)
      assert.equal("string", type(why))
    end
    for at = 1, #whole do
      for code = 0, 255 do
        local ok, v, why = pcall(pickle.read, whole:sub(1, at - 1) .. string.char(code) .. whole:sub(at + 1))
        assert(ok, v)
        assert(v ~= nil or type(why) == "string")
      end
    end
  end)
end)
