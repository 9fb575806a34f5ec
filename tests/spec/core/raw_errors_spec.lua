-- Wrong arguments of public functions are refused by the function's name, at the caller's line: no text of LuaJIT about
-- the library's own variables.
local atomo = require "atomo"
local fails = require "support.fails"
local F = atomo.F

describe("a wrong argument is refused by name:", function()
  local t = atomo.zeros(2, 3)
  local cases = {
    ["zeros_like: tensor is a number"] = function() atomo.zeros_like(3) end,
    ["zeros_like: tensor is missing"] = function() atomo.zeros_like() end,
    ["empty_like: tensor is a table"] = function() atomo.empty_like {2, 3} end,
    ["find_nonfinite: got a number, expected a list"] = function() atomo.find_nonfinite(3) end,
    ["find_nonfinite: got a nil, expected a list"] = function() atomo.find_nonfinite(nil, 2) end,
    ["find_nonfinite: n is 'x', a string"] = function() atomo.find_nonfinite({t}, "x") end,
    ["gradcheck: inputs: got a nil, expected a list"] = function() atomo.gradcheck(print) end,
    ["view: sizes: entry 1 is nil, but entry 2 is there"] = function() t:view(nil, 6) end,
    ["reshape: sizes: entry 2 is nil, but entry 3 is there"] = function() t:reshape(6, nil, 1) end,
    ["permute: dimensions: entry 1 is nil"] = function() t:permute(nil, 2) end,
    ["flip: dimensions: entry 1 is nil"] = function() t:flip(nil, 2) end,
    ["tile: counts: entry 1 is nil"] = function() t:tile(nil, 2) end,
    ["set: value is missing"] = function() t:set() end,
    ["sum: dimension {...} (one at a time) of a tensor with 2"] = function() t:sum {1, 2} end,
    ["avg_pool2d: options are a number"] = function() F.avg_pool2d(atomo.zeros(1, 2, 2, 1), 2, 2) end,
  }
  for text, call in pairs(cases) do
    it(text, function() fails({"raw_errors_spec.lua:", text}, call) end)
  end

  it("a second argument of an activation that has none is not read", function()
    for _, name in ipairs {"silu", "tanh", "sigmoid"} do
      assert.same(F[name](t + 1):totable(), F[name](t + 1, true):totable())
      assert.same(F[name](t + 1):totable(), F[name](t + 1, t):totable())
    end
  end)
end)
