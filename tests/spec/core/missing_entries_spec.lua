-- A nil in a list or among sizes (a misspelt name, a layer without bias) is refused by name. Lua's # and ipairs end
-- there, so that a shape would have fewer dimensions, and parameters behind it would not be trained, without a word.
local atomo = require "atomo"
local fails = require "support.fails"
local nn = atomo.nn

describe("a size that is nil", function()
  for _, name in ipairs {"zeros", "ones", "rand", "randn", "empty"} do
    it("is refused by " .. name, function()
      local make = rawget(atomo, name) or require("atomo.tensor")[name]
      fails({name .. ": size nil in dimension 1, expected a whole number"}, make, nil)
      fails("size nil in dimension 2", make, 2, nil)
      fails("size nil in dimension 2", make, 2, nil, 3)
      fails("size nil in dimension 2", make, {2, nil, 3})
      assert.equal("f32", make(2, "f32"):dtype())
      assert.same({}, make():shape())
    end)
  end

  it("is refused by full", function()
    fails("full: size nil in dimension 1", atomo.full, nil, 1)
  end)
end)

describe("an entry that is nil", function()
  local function w() return atomo.param {1, 2} end
  local t = atomo.ones(2)
  local cases = {
    ["tensor: entry 2 is nil, but entry 3 is there"] = function() atomo.tensor {1, nil, 3} end,
    ["cat: entry 2"] = function() atomo.cat({t, nil, t}, 1) end,
    ["stack: entry 2"] = function() atomo.stack {t, nil, t} end,
    ["split: sizes: entry 2"] = function() t:split {1, nil, 1} end,
    ["sgd: params: entry 2"] = function() atomo.optim.sgd {params = {w(), nil, w()}, lr = 1} end,
    ["adam: params of a group: entry 2"] = function()
      atomo.optim.adam {params = {{params = {w(), nil, w()}}}, lr = 1}
    end,
    ["ema: params: entry 2"] = function() atomo.optim.ema {params = {w(), nil, w()}} end,
    ["params: entry 2"] = function() atomo.optim.clip_grad_norm({w(), nil, w()}, 1) end,
    ["Concat: entry 2"] = function() nn.Concat {nn.ReLU(), nil, nn.ReLU()} end,
    ["encode_all: entry 2"] = function() atomo.compressor "entry:ratio=2":encode_all({t, nil, t}, {step = 0}) end,
    ["find_nonfinite: entry 2"] = function() atomo.find_nonfinite {t, nil, t} end,
    ["gradcheck: inputs: entry 2"] = function() atomo.gradcheck(function(a) return a end, {w(), nil, w()}) end,
  }
  for text, call in pairs(cases) do
    it("is refused: " .. text, function() fails(text, call) end)
  end

  it("is refused in a table with names only, which looks like an empty list", function()
    fails("tensor: got a table with the key 'x', expected a list", atomo.tensor, {x = 1})
    assert.equal(0, atomo.tensor({}):numel())
  end)
end)
