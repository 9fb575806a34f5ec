-- What every compressor, native or in Lua, refuses in the same way: keys that a message cannot hold, memory that is too
-- small, a tensor that is pushed twice, another shape under a number whose residual would be lost. And states: those of
-- tensors that are not planned yet are saved again, damaged ones are refused, tables with gaps keep their fields.
local atomo = require "atomo"
local T = require "atomo.tensor"
local values = require "atomo.compress.custom.values"
local fails = require("support.codec").fails
local root = require "support.root"

dofile(root .. "scripts/atoms/haar.lua")
dofile(root .. "scripts/atoms/head_tail.lua")
require "support.int8" "int8_contract"

local texts = {"entry:ratio=4", "powersgd", "qsgd", "topk:ratio=4", "haar_lua:ratio=4", "head_tail:ratio=4",
  "int8_contract"}

local function with_feedback(text) return text .. (text:find ":" and ",ef=true" or ":ef=true") end

for _, text in ipairs(texts) do
  describe(text, function()
    local c, out, g
    before_each(function()
      atomo.manual_seed(4)
      g = atomo.randn(6, 8)
      c = atomo.compressor(with_feedback(text))
      c:prepare({{6, 8}, {5, 4}}, {"a", "b"})
      out = T.empty({2 * c:wire_max()}, "u8")
    end)

    it("refuses steps and ranks that a message cannot hold", function()
      for _, step in ipairs {-1, 1.5, 2 ^ 32, 0 / 0} do
        fails("expected an integer in 0 .. 2^32-1", c.encode, c, g, {step = step})
        fails("expected an integer in 0 .. 2^32-1", c.begin_step, c, step, 0)
        fails("expected an integer in 0 .. 2^32-1", c.encode_step, c, {g, atomo.randn(5, 4)}, {step = step, out = out})
      end
      fails("rank is 16777216, expected an integer in 0 .. 2^24-1", c.encode, c, g, {rank = 2 ^ 24})
      fails("rank is 'x', a string", c.begin_step, c, 0, "x")
      fails("step is missing", c.encode_step, c, {g, atomo.randn(5, 4)}, {out = out})
    end)

    it("refuses a tensor without entries, and takes others afterwards", function()
      fails("tensor 3 of shape [0,7] is empty", c.encode, c, atomo.zeros(0, 7), {tensor = 3})
      local new = atomo.compressor(with_feedback(text))
      fails("tensor 2 of shape [0] is empty", new.encode_all, new, {g, atomo.zeros {0}})
      fails("tensor 1 of shape [4,0,2] is empty", new.prepare, new, {{4, 0, 2}})
      assert.same({6, 8}, c:decode(c:encode(g, {step = 1})):shape())
      assert.same({6, 8}, new:decode(new:encode(g, {step = 1})):shape())
    end)

    it("refuses to push outside a step, beside out, and what is not planned", function()
      fails("push: begin_step was not called", c.push, c, 1, g, out, 0)
      fails("end_step: begin_step was not called", c.end_step, c)
      c:begin_step(0, 0)
      fails("has not been ended", c.begin_step, c, 1, 0)
      fails("has not been ended", c.encode, c, g, {step = 1})
      fails("push: offset is -8", c.push, c, 1, g, out, -8)
      fails("push: offset is missing", c.push, c, 1, g, out)
      fails("bytes are left in out", c.push, c, 1, g, T.empty({3}, "u8"), 0)
      fails("push: out is f32, expected u8", c.push, c, 1, g, T.empty({4000}), 0)
      fails("tensor number 3 is not planned", c.push, c, 3, g, out, 0)
      fails("[3,3]", c.push, c, 1, atomo.randn(3, 3), out, 0)
      fails("gradient", c.push, c, 1, g:int(), out, 0)
      assert.is_true(c:push(1, g, out, 0) > 0)
      c:end_step()
      fails("bytes are left in out", c.encode_step, c, {g, atomo.randn(5, 4)}, {step = 1, out = T.empty({5}, "u8")})
    end)

    it("refuses to push a tensor twice in a step, and loses nothing", function()
      c:begin_step(0, 0)
      local n = c:push(1, g, out, 0)
      local sent = c:decode(out:narrow(1, 1, n):contiguous())
      fails("has been pushed in step 0 already", c.push, c, 1, g * 2, out, n)
      c:end_step()
      assert.is_true((sent + c:residual(1) - g):norm_value(math.huge) < 1e-5)
      c:begin_step(1, 0)
      assert.is_true(c:push(1, g, out, 0) > 0)
      c:undo_step()
      c:begin_step(1, 0)
      assert.is_true(c:push(1, g, out, 0) > 0)
      c:end_step()
    end)

    it("refuses another shape under a number that holds a residual, naming both", function()
      c:encode(g, {tensor = 1})
      local held = c:residual(1)
      if held:norm_value(2) > 0 then
        for _, what in ipairs {"would lose its residual of error feedback", "[6,8]", "[3,7]"} do
          fails(what, c.encode, c, atomo.randn(3, 7), {tensor = 1})
        end
        fails("would lose its residual", c.prepare, c, {{3, 7}})
        assert.equal(0, (c:residual(1) - held):norm_value(2))
      end
      c:encode(atomo.randn(3, 7), {tensor = 9})
      local plain = atomo.compressor(text) -- without a residual a number may change its shape
      plain:encode(g)
      assert.same({3, 7}, plain:decode(plain:encode(atomo.randn(3, 7))):shape())
    end)

    it("refuses shapes, scales, budgets and numbers of ranks that are none", function()
      for _, shapes in ipairs {{{-1, 3}}, {{1.5, 3}}, {5}} do
        fails("expected a list of whole numbers", c.prepare, c, shapes)
      end
      local message = c:encode(g)
      for _, scale in ipairs {0 / 0, 1 / 0, 1e39} do
        fails("decode_add: scale is", c.decode_add, c, message, scale, g * 0)
      end
      fails("set_budget", c.set_budget, c, nil)
      c:set_ranks(4)
      fails("ranks is 0", c.set_ranks, c, 0)
    end)

    it("saves the state of tensors that it does not know yet, and refuses a residual of NaN", function()
      c:encode(g, {tensor = 1})
      local state, anew = c:state_dict(), atomo.compressor(with_feedback(text))
      anew:load_state_dict(state)
      local again = atomo.compressor(with_feedback(text))
      again:load_state_dict(anew:state_dict())
      again:prepare({{6, 8}, {5, 4}}, {"a", "b"})
      assert.equal(0, (again:residual(1) - c:residual(1)):norm_value(2))
      state["1"]:data()[3] = 0 / 0
      local fresh = atomo.compressor(with_feedback(text))
      fresh:prepare({{6, 8}, {5, 4}}, {"a", "b"})
      fails("memory of tensor", fresh.load_state_dict, fresh, state)
    end)
  end)
end

describe("a table's bytes", function()
  it("keep every field where its keys have gaps", function()
    local list = {1, 2, nil, 4}
    list.name = "x"
    local read = values.read(values.write(list))
    assert.same({1, 2, [4] = 4, name = "x"}, read)
    assert.same({[1] = "a", [3] = true}, values.read(values.write {[1] = "a", [3] = true}))
    assert.same({1, {2, 3}, "x"}, values.read(values.write {1, {2, 3}, "x"}))
  end)
  it("are refused of what has none", function() fails("a function cannot be sent", values.write, {f = print}) end)
end)
