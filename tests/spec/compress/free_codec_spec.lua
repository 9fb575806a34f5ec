-- atomo.codec: free compressors in Lua. Their messages, figures, claims, error feedback and states.
local atomo = require "atomo"
local f = require "atomo.ffi"
local declare = require "support.int8"
local fails = require("support.codec").fails

declare "int8"
atomo.codec("top_one", {
  encode = function(g)
    local flat = g:view(-1)
    local at = flat:abs():argmax():item()
    return {atomo.tensor({at}, "i32"), flat:get(at)}
  end,
  decode = function(parts, shape)
    local g = atomo.zeros(shape)
    g:view(-1):set(parts[1]:get(1), parts[2])
    return g
  end,
})

describe("verify passes", function()
  for _, text in ipairs {"int8", "int8:ef=true", "top_one", "top_one:ef=true"} do
    it(text, function()
      local report = atomo.verify(text, {shape = {6, 3, 3, 4}, draws = 200})
      assert.is_true(report.pass, tostring(report))
    end)
  end
end)

describe("verify finds", function()
  local function found(what, name, more)
    declare(name, more)
    local report = atomo.verify(name, {shape = {6, 3, 3, 4}, draws = 200})
    assert.truthy(table.concat(report:failures(), "; "):find(what, 1, true), tostring(report))
  end
  it("a claim to be unbiased that is wrong", function()
    found("unbiased", "rounded_down", {encode = function(g)
      local scale = math.max(g:norm_value(math.huge), 1e-30) / 127
      return {scale, ((g / scale):floor() + 128):to "u8"}
    end})
  end)
  it("a claimed variance that is wrong", function()
    found("variance", "boasting", {variance = function(g) return 1e-7 * g:norm_value(2) ^ 2 end})
  end)
  it("draws that do not come from info.rand", function()
    local calls = 0
    found("same key, same bytes", "own_draws", {encode = function(g)
      calls = calls + 1
      return {g:norm_value(2) / 127 * (1 + calls * 1e-3), (g * 0 + 128):to "u8"}
    end})
  end)
end)

describe("a free compressor", function()
  local g
  before_each(function()
    atomo.manual_seed(3)
    g = atomo.randn(8, 9)
  end)

  it("states its bytes as sent, and the squared error of its message", function()
    local c = atomo.compressor "int8"
    local m = c:encode(g, {step = 1})
    local s = c:stats()
    assert.equal(#m:bytes(), s.nbytes)
    assert.is_true(s.nbytes < 24 + 72 + 20, s.nbytes)
    assert.is_true(math.abs(s.variance / (c:decode(m) - g):norm_value(2) ^ 2 - 1) < 1e-4)
    assert.is_true(math.abs(s.square / g:norm_value(2) ^ 2 - 1) < 1e-6)
  end)

  it("sends decoded entries where its result takes as many bytes as they", function()
    atomo.codec("wasteful", {encode = function(x) return {x, x} end, decode = function(parts) return parts[1] / 2 end})
    local c = atomo.compressor "wasteful"
    local m = c:encode(g)
    assert.equal(24 + 4 * 72, m.nbytes)
    assert.equal(0, (c:decode(m) - g / 2):norm_value(math.huge))
  end)

  it("is unbiased where its draws decide how long its result is", function()
    atomo.codec("coin", {unbiased = true, -- 0 or twice the gradient, which takes more bytes than the gradient
      encode = function(x, _, info) return info.rand(1):item() < 0.5 and 0 or {x, x} end,
      decode = function(parts, shape)
        return type(parts) == "number" and atomo.zeros(shape) or parts[1] + parts[2]
      end})
    local report = atomo.verify("coin", {draws = 400})
    assert.is_true(report.pass, tostring(report))
  end)

  it("gives the same in one step and streamed, and decodes all ranks' messages", function()
    local shapes, grads = {{8, 9}, {5}}, {g, atomo.randn(5)}
    local c, d = atomo.compressor "int8", atomo.compressor "int8"
    c:prepare(shapes)
    d:prepare(shapes)
    local one, two, at = atomo.zeros(c:wire_max(), "u8"), atomo.zeros(c:wire_max(), "u8"), 0
    local bytes = c:encode_step(grads, {step = 4, rank = 1, out = one})
    d:begin_step(4, 1)
    for i, x in ipairs(grads) do at = at + d:push(i, x, two, at) end
    d:end_step()
    assert.equal(one:narrow(1, 1, bytes):bytes(), two:narrow(1, 1, at):bytes())
    local accs, streamed = {atomo.zeros(8, 9), atomo.zeros(5)}, {atomo.zeros(8, 9), atomo.zeros(5)}
    c:decode_step(one, 0, bytes, 0.5, accs)
    local source = {data = f.ffi.cast("const uint8_t *", two.h.data), left = at, rank = 1}
    for i in ipairs(grads) do c:decode_tensor(i, 4, {source}, 0.5, streamed[i]) end
    for i, x in ipairs(grads) do
      assert.equal(0, (accs[i] - streamed[i]):norm_value(math.huge))
      assert.is_true((accs[i] * 2 - x):norm_value(2) < 0.02 * x:norm_value(2))
    end
    fails("of step 4, expected 5", c.decode_step, c, one, 0, bytes, 1, accs, 5)
    source.data, source.left = f.ffi.cast("const uint8_t *", two.h.data), at
    fails("for tensor 1, expected tensor 2", c.decode_tensor, c, 2, 4, {source}, 1, accs[2])
    source.rank = 0
    fails("of rank 1, expected 0", c.decode_tensor, c, 1, 4, {source}, 1, accs[1])
  end)

  it("keeps residual and state in checkpoints, and undoes them with their step", function()
    local counts
    declare("counting", {encode = function(x, _, info)
      info.state.steps = (info.state.steps or 0) + 1
      counts = info.state.steps
      return x:norm_value(2)
    end, decode = function(parts, shape) return atomo.full(shape, parts / 9) end})
    local c, out = atomo.compressor "counting:ef=true", atomo.zeros(400, "u8")
    c:prepare {{8, 9}}
    local function step(number, finish)
      c:begin_step(number, 0)
      local n = c:push(1, g, out, 0)
      c[finish](c)
      return out:narrow(1, 1, n):bytes()
    end
    step(1, "end_step")
    local saved = c:state_dict()
    assert.same({"1", "state.1"}, (function()
      local names = {}
      for name in pairs(saved) do names[#names + 1] = name end
      table.sort(names)
      return names
    end)())
    step(2, "undo_step")
    local want = step(2, "end_step")
    assert.equal(2, counts)
    c = atomo.compressor "counting:ef=true"
    c:load_state_dict(saved)
    c:prepare {{8, 9}}
    assert.equal(want, step(2, "end_step"))
    assert.equal(2, counts)
  end)

  it("refuses messages of others, and results that are wrong, by name", function()
    declare("other", {options = {by = 1}})
    local m = atomo.compressor("int8"):encode(g)
    local c = atomo.compressor "other:by=2"
    c:encode(g)
    fails("another compressor", c.decode, c, m)
    fails("another compressor", c.decode, c, atomo.compressor("other:by=1"):encode(g))
    fails("takes no budget", atomo.compressor, {name = "int8", budget = function() return 3 end})
    local function wrong(what, more)
      declare("wrong", more)
      c = atomo.compressor "wrong"
      fails(what, c.encode, c, g)
    end
    wrong("encode returned nothing", {encode = function() end})
    wrong("encode's result 2 is a function", {encode = function() return {1, print} end})
    wrong("decode's result is missing", {decode = function() end})
    wrong("decode's result is [3], expected [8,9]", {decode = function() return atomo.ones(3) end})
    wrong("decode's result has 72 NaN or Inf", {decode = function(_, s) return atomo.full(s, 0 / 0) end})
    wrong("takes 87 bytes, bytes(shape) claims at most 10", {bytes = function() return 10 end})
    fails("codec: x: decode is missing", atomo.codec, "x", {encode = print})
    fails("did you mean 'unbiased'", declare, "x", {unbaised = true})
  end)
end)
