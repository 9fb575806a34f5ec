-- Activations in 16 bits: what is kept for backward under bf16, its bytes and its values; gradients beside those of
-- fp32; changes in place, retained graphs and scopes in between.
local atomo = require "atomo"
local autograd = require "atomo.autograd"
local ffi = require "ffi"
local gradients = require "support.gradients"
local packing = require "atomo.autograd.packing"
local shell = require "support.shell"
local C = require("atomo.ffi").C
local F = atomo.F
local randn = atomo.randn

local smallest = packing.smallest

setup(function() atomo.set_activations "bf16" end)
teardown(function() atomo.set_activations "fp32" end)

--- Runs fn with tensors of at least n elements packed.
local function from(n, fn, ...)
  packing.smallest = n
  local ok, why = pcall(fn, ...)
  packing.smallest = smallest
  assert.is_true(ok, why)
end

local function near(want, got, tolerance, what)
  assert.same(want:shape(), got:shape(), what)
  local far, norm = (want - got):norm_value(), want:norm_value()
  assert.is_true(far <= tolerance * norm, ("%s: %g of %g"):format(what, far, norm))
end

--- Returns the contexts of the operators that fn calls, in their order, and fn's result.
local function contexts(fn)
  local list = {}
  autograd.observe(function(pass, _, ctx) if pass == "forward" then list[#list + 1] = ctx end end)
  local ok, y = pcall(fn)
  autograd.observe(nil)
  assert.is_true(ok, y)
  return list, y
end

local function message(fn, ...)
  local ok, text = pcall(fn, ...)
  assert.is_false(ok)
  return text
end

describe("packing", function()
  it("rounds to nearest, ties to even; infinities, NaN, signed zeros and subnormal numbers pass", function()
    local cases = { -- f32 bits, the bf16 bits expected
      {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x3f80ffff, 0x3f81},
      {0xbf818000, 0xbf82}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f7fffff, 0x7f80}, {0x7f7f7fff, 0x7f7f},
      {0, 0}, {0x80000000, 0x8000}, {0x00008001, 0x0001}, {0x00010000, 0x0001}, {0x00008000, 0x0000},
      {0x7fc00000, 0x7fc0}, {0x7f800001, 0x7fc0}, {0xffffffff, 0xffff},
    }
    local t = atomo.zeros(#cases)
    local bits = ffi.cast("uint32_t *", t:data())
    for i, case in ipairs(cases) do bits[i - 1] = case[1] end
    local codes, back = ffi.new "atomo_tensor *[1]", ffi.new "atomo_tensor *[1]"
    assert.equal(0, C.atomo_bf16_pack(t.h, codes))
    assert.equal(0, C.atomo_bf16_unpack(codes[0], t.h, back))
    local code, value = ffi.cast("uint16_t *", codes[0].data), ffi.cast("uint32_t *", back[0].data)
    for i, case in ipairs(cases) do
      assert.equal(case[2], code[i - 1], ("case %d"):format(i))
      assert.equal(case[2] * 65536, tonumber(value[i - 1]), ("case %d"):format(i))
    end
    C.atomo_tensor_free(codes[0])
    C.atomo_tensor_free(back[0])
  end)

  -- The operands of most products are rounded anyway; the others differ by 2^-9 of what they saved.
  it("changes gradients by a few roundings, in every operator that packs and in no other", function()
    local packed = {}
    autograd.observe(function(pass, op, ctx)
      if pass == "backward" and ctx.packed then packed[op.name] = true end
    end)
    local function check(name, fn, make)
      local grads = {}
      for _, precision in ipairs {"fp32", "bf16"} do
        atomo.manual_seed(3)
        local params, activations, total = {}, {}, nil
        for i, t in ipairs(make()) do params[i] = atomo.param(t:detach():clone()) end
        atomo.autocast(precision, function()
          for i, p in ipairs(params) do activations[i] = p * 1 end
          for _, y in ipairs {fn(unpack(activations))} do
            local part = (y * randn(y:shape())):sum()
            total = total and total + part or part
          end
        end)
        total:backward()
        grads[precision] = params
      end
      for i, p in ipairs(grads.fp32) do
        if p.grad then near(p.grad, grads.bf16[i].grad, 0.05, ("%s, input %d"):format(name, i)) end
      end
    end
    local ok, why = pcall(from, 1, gradients.each, check)
    autograd.observe(nil)
    assert.is_true(ok, why)
    assert.same(packing.operators, packed)
  end)

  it("is done only if it is asked for, and in bf16", function()
    local function kept(activations, precision)
      atomo.set_activations(activations)
      assert.equal(activations, atomo.activations())
      local list = atomo.autocast(precision, function()
        return contexts(function() return atomo.param(randn(64, 64)):relu():mul(2) end)
      end)
      local packed = false
      for _, ctx in ipairs(list) do packed = packed or ctx.packed ~= false end
      return packed
    end
    assert.is_false(kept("fp32", "bf16"))
    assert.is_false(kept("bf16", "fp32"))
    assert.is_true(kept("bf16", "bf16"))
    for _, bad in ipairs {"f16", 16, false} do
      assert.error_matches(function() atomo.set_activations(bad) end, "set_activations: .*expected 'fp32' or 'bf16'")
    end
    assert.equal("bf16", atomo.activations())
  end)

  it("is done by the operators that docs/guide.md lists", function()
    local listed = {}
    local text = shell.read(require "support.root" .. "./docs/guide.md"):match "The layers that round are (.-)%. Kept"
    for name in text:gmatch "`([%w_]+)`" do listed[name] = true end
    assert.same(packing.operators, listed)
  end)

  --- Returns a chain of convolutions, batch norms and ReLUs, and an input.
  local function chain(depth, channels, size)
    atomo.manual_seed(2)
    local layers = {}
    for i = 1, depth do
      layers[3 * i - 2] = atomo.nn.Conv2d(channels, channels, 3, {padding = 1, bias = false})
      layers[3 * i - 1], layers[3 * i] = atomo.nn.BatchNorm2d(channels), atomo.nn.ReLU()
    end
    return atomo.nn.Sequential(layers), randn(4, size, size, channels)
  end

  it("halves the bytes kept for backward by a chain of convolutions, batch norms and ReLUs", function()
    local net, x = chain(4, 16, 24)
    local bytes = {}
    for _, precision in ipairs {"fp32", "bf16"} do
      for _ = 1, 2 do -- the first makes plans and constants
        atomo.scope(function()
          collectgarbage()
          local before = atomo.mem().live
          local loss = atomo.autocast(precision, function() return net(x):sum() end)
          collectgarbage()
          bytes[precision] = atomo.mem().live - before
          loss:backward()
          if precision == "bf16" then
            local left = atomo.mem().live - before
            assert.is_true(left < 0.1 * bytes.bf16, ("%g of %g bytes are left after backward"):format(left, bytes.bf16))
          end
          for _, p in ipairs(net:parameters()) do p:zero_grad() end
        end)
      end
    end
    assert.is_true(bytes.bf16 < 0.55 * bytes.fp32, ("%g and %g bytes"):format(bytes.bf16, bytes.fp32))
    assert.is_true(bytes.bf16 > 0.2 * bytes.fp32, ("%g and %g bytes"):format(bytes.bf16, bytes.fp32))
  end)

  it("lowers the peak of a step, also of live and pooled memory together", function()
    local net, x = chain(12, 32, 64)
    local peak, all = {}, {}
    for _, precision in ipairs {"fp32", "bf16"} do
      for _ = 1, 2 do
        C.atomo_mem_trim()
        C.atomo_mem_reset_peak()
        atomo.scope(function()
          atomo.autocast(precision, function() return net(x):sum() end):backward()
          for _, p in ipairs(net:parameters()) do p:zero_grad() end
        end)
        peak[precision], all[precision] = atomo.mem().peak, atomo.mem().high_water
      end
    end
    assert.is_true(peak.bf16 < 0.75 * peak.fp32, ("peak %g and %g"):format(peak.bf16, peak.fp32))
    assert.is_true(all.bf16 < 0.75 * all.fp32, ("with the pool %g and %g"):format(all.bf16, all.fp32))
  end)

  it("makes one copy for all operators that save the same tensor, and its views", function()
    from(1, function()
      local w, x = atomo.param(randn(4, 6)), atomo.param(randn(5, 6))
      local list, y = contexts(function()
        return atomo.autocast(function()
          local h = F.relu(x * 1) -- saves its result
          return F.linear(h, w):sum() + F.linear(h:view(1, 5, 6), w):sum() + (h * h):sum()
        end)
      end)
      local copies, holders = {}, 0
      for _, ctx in ipairs(list) do
        for _, p in pairs(ctx.packed or {}) do
          copies[p] = true
          holders = holders + 1
        end
      end
      local copy = next(copies)
      assert.is_nil(next(copies, copy))
      assert.equal(5, holders)
      assert.equal(5, copy.holders)
      y:backward()
      assert.is_false(copy.codes)
    end)
  end)

  it("leaves parameters, data, small tensors, statistics and user-defined operators in f32", function()
    local exact
    local op = atomo.func {name = "mine", forward = function(ctx, x)
      ctx:save(x)
      return x * 2
    end, backward = function(ctx, g)
      exact = ctx:saved()
      return g * 2
    end}
    local w, data, small = atomo.param(randn(64, 64)), randn(64, 64), atomo.param(randn(31, 33))
    local values
    local list, y = contexts(function()
      return atomo.autocast(function()
        local h = F.linear(data, w)
        values = h:detach():clone()
        return op(h):sum() + F.layer_norm(h, 64):sum() + F.relu(small * 1):sum()
      end)
    end)
    local kinds = {}
    for _, ctx in ipairs(list) do
      for k in pairs(ctx.packed or {}) do kinds[#kinds + 1] = ctx.op.name .. k end
    end
    assert.same({"layer_norm1"}, kinds)
    y:backward()
    assert.equal(0, (exact - values):norm_value())
  end)

  it("keeps the input of a norm in f32 if its mean is far from 0", function()
    for _, mean in ipairs {0, 100} do
      local grads = {}
      local x, gy = randn(8, 6, 6, 16) + mean, randn(8, 6, 6, 16)
      for _, precision in ipairs {"fp32", "bf16"} do
        for name, norm in pairs {
          batch = function(h) return F.batch_norm(h, nil, nil, {training = true}) end,
          layer = function(h) return F.layer_norm(h, 16) end,
          group = function(h) return F.group_norm(h, 4) end,
        } do
          local p = atomo.param(x:clone())
          local list, y = contexts(function()
            return atomo.autocast(precision, function() return (norm(p * 1) * gy):sum() end)
          end)
          y:backward()
          grads[precision .. name] = p.grad
          for _, ctx in ipairs(list) do
            if ctx.op.name == name .. "_norm" then
              assert.equal(precision == "bf16" and mean == 0, ctx.saved_tensors[1] == false)
            end
          end
        end
      end
      for _, name in ipairs {"batch", "layer", "group"} do
        near(grads["fp32" .. name], grads["bf16" .. name], mean == 0 and 0.02 or 1e-5, name)
      end
    end
  end)
end)

describe("a packed tensor", function()
  local function step(precision, change)
    atomo.manual_seed(8)
    local x, w = atomo.param(randn(40, 50)), atomo.param(randn(30, 50))
    local y = atomo.autocast(precision, function()
      local h = F.silu(x)
      local z = F.linear(h, w)
      change(h)
      return z:sum()
    end)
    y:backward()
    return {x.grad, w.grad}
  end
  local function same(a, b)
    for i = 1, 2 do assert.equal(0, (a[i] - b[i]):norm_value()) end
  end

  it("is unaffected by a change in place, which fp32 refuses, and by :free()", function()
    local want = step("bf16", function() end)
    local function add(h) atomo.no_grad(h.add_, h, 1) end
    same(want, step("bf16", add))
    same(want, step("bf16", function(h) h:free() end))
    assert.matches("linear: a tensor that it saved %[40,50%].* was changed in place", message(step, "fp32", add))
    from(1e9, function()
      assert.matches("linear: a tensor that it saved %[40,50%].* was changed in place", message(step, "bf16", add))
    end)
  end)

  it("is packed again after a change in place", function()
    atomo.autocast(function()
      local x = atomo.param(randn(40, 50))
      local h = x * 1
      local a = (h * h):sum()
      atomo.no_grad(h.fill_, h, 3)
      local b = (h * h):sum()
      b:backward(nil, {retain_graph = true})
      assert.equal(6, x.grad:get(7, 7))
      x:zero_grad()
      a:backward()
      near(x:detach() * 2, x.grad, 2 ^ -8, "before the change")
    end)
  end)

  it("serves a graph that is retained, twice, with the same bits", function()
    local x, w = atomo.param(randn(40, 50)), atomo.param(randn(30, 50))
    local y = atomo.autocast(function() return F.gelu(F.linear(F.relu(x * 1), w)):sum() end)
    y:backward(nil, {retain_graph = true})
    local once = w.grad:clone()
    w:zero_grad()
    y:backward()
    assert.equal(0, (once - w.grad):norm_value())
    assert.matches("was freed by an earlier backward", message(y.backward, y))
  end)

  it("gives the same bits with several threads and in a scope", function()
    local want = step("bf16", function() end)
    local threads = atomo.num_threads()
    atomo.set_num_threads(2)
    local got = atomo.scope(function()
      local list = step("bf16", function() end)
      for _, t in ipairs(list) do t:keep() end
      return list
    end)
    atomo.set_num_threads(threads)
    same(want, got)
  end)
end)

describe("atomo.scope with packed tensors", function()
  it("frees activations that are still referred to at its end, and lets them pass and be kept", function()
    local x = atomo.param(randn(40, 50))
    local inside, kept
    local passed = atomo.scope(function()
      return atomo.autocast(function()
        inside, kept = F.relu(x * 1), F.relu(x * 2):keep()
        return F.relu(x * 3)
      end)
    end)
    collectgarbage()
    assert.equal(50, kept:size(2))
    assert.equal(50, passed:size(2))
    assert.matches("was freed at the end of the atomo.scope", message(function() return inside:size(1) end))
    atomo.scope(function()
      local from_inner = atomo.scope(function() return atomo.autocast(function() return F.relu(x * 1) end) end)
      assert.equal(40, from_inner:size(1))
      kept = from_inner
    end)
    assert.matches("was freed at the end of the atomo.scope", message(function() return kept:size(1) end))
  end)

  it("lets a graph made in an inner scope of arguments outside be passed backward", function()
    local x = atomo.param(randn(40, 50))
    atomo.autocast(function()
      local h = x * 1
      local y = atomo.scope(function() return (h * h):sum() end)
      collectgarbage()
      y:backward()
    end)
    near(x:detach() * 2, x.grad, 2 ^ -8, "gradient")
  end)
end)
