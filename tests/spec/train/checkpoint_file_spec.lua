-- The file of a checkpoint: cut off anywhere, or with any one bit of it flipped, it is refused.
local atomo = require "atomo"
local checkpoint = require "atomo.train.checkpoint"

local path, whole
local function put(bytes)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
end

describe("a checkpoint's file", function()
  setup(function()
    path = os.tmpname()
    atomo.manual_seed(1)
    checkpoint.write(path, {["model.w"] = atomo.randn(2, 3):t(), ["model.n"] = atomo.tensor({7}, "i32"),
      ["optimizer.v"] = atomo.zeros(0, 4)}, {step = "3", epoch = "1", ["exchange.choice"] = '{"compress":"none"}'})
    local file = assert(io.open(path, "rb"))
    whole = file:read "*a"
    file:close()
  end)
  teardown(function() os.remove(path) end)

  it("comes back as it was written", function()
    local tensors, metadata = checkpoint.read(path)
    atomo.manual_seed(1)
    assert.same(atomo.randn(2, 3):t():totable(), tensors["model.w"]:totable())
    assert.same({7}, tensors["model.n"]:totable())
    assert.same({0, 4}, tensors["optimizer.v"]:shape())
    assert.equal("3", metadata.step)
    assert.equal('{"compress":"none"}', metadata["exchange.choice"])
  end)

  it("is refused cut off at any byte, or with bytes behind it", function()
    for n = 0, #whole - 1 do
      put(whole:sub(1, n))
      assert.is_false((pcall(checkpoint.read, path)), n)
    end
    put(whole .. "\0")
    assert.is_false((pcall(checkpoint.read, path)))
  end)

  it("is refused with any one bit flipped, and says that it is damaged where only numbers changed", function()
    for i = 1, #whole do
      for b = 0, 7 do
        put(whole:sub(1, i - 1) .. string.char(bit.bxor(whole:byte(i), 2 ^ b)) .. whole:sub(i + 1))
        local ok, text = pcall(checkpoint.read, path)
        assert.is_false(ok, ("byte %d, bit %d"):format(i, b))
        if i == #whole then assert.matches("is damaged: it says checksum %x+, its contents have %x+", text) end
      end
    end
  end)

  it("is refused where it is another's", function()
    require("atomo.tensor.safetensors").save(path, {a = atomo.zeros(1)}, {format = "other"})
    local ok, text = pcall(checkpoint.read, path)
    assert.is_false(ok)
    assert.matches("format 'other', expected 'atomo%-checkpoint%-%d'", text)
  end)
end)
