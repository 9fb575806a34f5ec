--- Tensors of dtype f16 and bf16: storage of 16-bit floats. Conversions against a second implementation in Lua, every
--- function that copies, and errors of those that compute.
local atomo = require "atomo"
local T = require "atomo.tensor"
local safetensors = require "atomo.tensor.safetensors"
local fails = require "support.fails"
local edges = require "support.edges"
local rows = require "support.edge_rows"
local with_file = require "support.with_file"

local formats = { -- fraction: bits; least: exponent of the smallest normal number; most: the largest number
  f16 = {fraction = 10, least = -14, most = 65504},
  bf16 = {fraction = 7, least = -126, most = (2 - 2 ^ -7) * 2 ^ 127},
}

--- Rounds v to the format, to nearest, ties to even.
local function rounded(format, v)
  if v ~= v or v == 0 or math.abs(v) == math.huge then return v end
  local _, e = math.frexp(v)
  local unit = 2 ^ (math.max(e - 1, format.least) - format.fraction)
  local q = v / unit
  local r = math.floor(q)
  if q - r > 0.5 or (q - r == 0.5 and r % 2 == 1) then r = r + 1 end
  if r == 0 then return 0 * v end
  r = r * unit
  return math.abs(r) > format.most and (v > 0 and math.huge or -math.huge) or r
end

local function same(a, b) return a == b and 1 / a == 1 / b or (a ~= a and b ~= b) end

--- Numbers of all magnitudes, exact in f32: ties, subnormals, the largest, infinite, NaN.
local function numbers()
  local list = {0, -0, 1, -1, 0 / 0, math.huge, -math.huge, 65504, 65519, 65520, -65520, 65536, 2 ^ -24, 2 ^ -25,
    3 * 2 ^ -26, 2 ^ -14, 2 ^ -133, 2 ^ -134, 3 * 2 ^ -135, 2 ^ -149, 2 ^ 127, (2 - 2 ^ -8) * 2 ^ 127,
    (2 - 2 ^ -23) * 2 ^ 127, 1 + 2 ^ -8, 1 + 3 * 2 ^ -8, 1 + 2 ^ -11, 1 + 3 * 2 ^ -11, 1 + 2 ^ -11 + 2 ^ -20}
  local x = 12345
  for _ = 1, 4000 do
    x = (x * 1103515245 + 12345) % 2 ^ 31
    local e = x % 280 - 150
    list[#list + 1] = (x % 2 == 0 and 1 or -1) * (1 + math.floor(x / 128) % 2 ^ 23 / 2 ^ 23) * 2 ^ math.min(e, 126)
  end
  return atomo.tensor(list)
end

for dtype, format in pairs(formats) do
  describe("a tensor of dtype " .. dtype, function()
    it("rounds f32 to nearest, ties to even, and gives the value back", function()
      local x = numbers()
      local y = x:to(dtype):to "f32"
      for i = 1, x:numel() do
        local wanted = rounded(format, x:get(i))
        assert.is_true(same(wanted, y:get(i)), ("%.9g: %.9g, expected %.9g"):format(x:get(i), y:get(i), wanted))
      end
    end)

    it("has every code: conversion to f32 and back changes none", function()
      local codes = atomo.empty(65536, dtype)
      local p = codes:data()
      for i = 0, 65535 do p[i] = i end
      local again = codes:to("f32"):to(dtype)
      local q = again:data()
      local nan = dtype == "f16" and 0x7C00 or 0x7F80
      for i = 0, 65535 do
        local magnitude = i % 32768
        assert.is_true(q[i] == i or (magnitude > nan and q[i] % 32768 > nan), i)
      end
    end)

    it("converts to and from integers as f32 does", function()
      local whole = atomo.tensor({0, 1, -2, 255, 256, 2000, -30000}, "i32")
      local half = whole:to(dtype)
      assert.same(whole:to("f32"):to(dtype):totable(), half:totable())
      assert.same(half:to("f32"):to("i32"):totable(), half:to("i32"):totable())
      assert.same(half:to("f32"):to("u8"):totable(), half:to("u8"):totable())
      assert.same({0, 7, 255}, atomo.tensor({0, 7, 255}, "u8"):to(dtype):totable())
      local other = dtype == "f16" and "bf16" or "f16"
      assert.same(half:to("f32"):to(other):totable(), half:to(other):totable())
    end)

    it("is made, filled, set and read", function()
      assert.equal(dtype, atomo.zeros(2, dtype):dtype())
      assert.equal(2, atomo.zeros(2, dtype):element_size())
      assert.same({1, 1}, atomo.ones(2, dtype):totable())
      assert.same({{1, 2.5}, {-3, 4}}, atomo.tensor({{1, 2.5}, {-3, 4}}, dtype):totable())
      local t = atomo.full({2, 3}, 0.1, dtype)
      assert.equal(rounded(format, 0.1), t:get(2, 3))
      t:set(1, 2, 7.5):fill_(-2):set(2, 1, 1.5)
      assert.same({{-2, -2, -2}, {1.5, -2, -2}}, t:totable())
      assert.equal(1.5, t:narrow(1, 2, 1):select(2, 1):item())
      assert.matches("1%.5000.*%[atomo%.Tensor " .. dtype .. " 2x3%]", tostring(t))
      assert.equal(12, #t:bytes())
      assert.equal(12, atomo.zeros_like(t):numel() * t:element_size())
    end)

    it("is copied, viewed, joined and picked from bit by bit", function()
      local t = atomo.tensor({{1, 2, 3}, {4, 5, 6}}, dtype)
      assert.same({{1, 4}, {2, 5}, {3, 6}}, t:t():totable())
      assert.same({{1, 4}, {2, 5}, {3, 6}}, t:t():contiguous():totable())
      assert.equal(dtype, t:t():clone():dtype())
      assert.same({4, 5, 6}, t:index_select(1, {2}):reshape(3):totable())
      assert.same({{1, 2, 3}, {4, 5, 6}, {1, 2, 3}, {4, 5, 6}}, atomo.cat({t, t}, 1):totable())
      local into = atomo.zeros(2, 3):copy_(t)
      assert.same(t:totable(), into:totable())
      t:narrow(2, 1, 2):copy_(t:narrow(2, 2, 2)) -- overlapping
      assert.same({{2, 3, 3}, {5, 6, 6}}, t:totable())
      assert.equal(T.crc(t), T.crc(t:clone()))
    end)

    it("counts its NaN and Inf", function()
      local t = atomo.tensor({1, 0 / 0, 2, math.huge}, dtype)
      local count, first = t:count_nonfinite()
      assert.same({2, 2}, {count, first})
      assert.equal(2, atomo.find_nonfinite {atomo.ones(2, dtype), t})
    end)

    it("answers questions about its elements, as a condition too", function()
      local t = atomo.tensor({1, 0 / 0, 0, math.huge}, dtype)
      assert.same({0, 1, 0, 0}, t:isnan():totable())
      assert.same({0, 0, 0, 1}, t:isinf():totable())
      assert.same({1, 0, 1, 0}, t:isfinite():totable())
      assert.same({0, 0, 1, 0}, t:logical_not():totable())
      assert.same({5, 5, 6, 5}, atomo.where(t, 5, atomo.full({4}, 6)):totable())
      assert.same({math.huge, 1}, t:index_select(1, {4, 1}):totable())
      assert.same({0, 1}, atomo.tensor({1, 0}, dtype):flip(1):totable())
      assert.same({1, 2, 1, 2}, atomo.tensor({1, 2}, dtype):tile(2):totable())
    end)

    it("refuses numbers that do not fit", function()
      local large = dtype == "f16" and 65520 or 3.4e38
      fails("does not fit " .. dtype, atomo.tensor, {1, large}, dtype)
      fails("does not fit " .. dtype, atomo.zeros(2, dtype).set, atomo.zeros(2, dtype), 1, large)
      fails("does not fit " .. dtype, atomo.zeros(2, dtype).fill_, atomo.zeros(2, dtype), -large)
    end)

    it("is refused, by name, where numbers are computed", function()
      local t = atomo.ones(4, 4, dtype)
      local calls = {
        add = function() return t + t end, mul = function() return t * 2 end, gt = function() return t:gt(0) end,
        add_ = function() return t:add_(1) end, axpy_ = function() return t:axpy_(1, t) end,
        exp = function() return t:exp() end, clamp = function() return t:clamp(0, 1) end,
        sum = function() return t:sum() end, max = function() return t:max() end,
        mean = function() return t:mean(1) end, argmax = function() return t:argmax(1) end,
        norm = function() return t:norm() end, dot = function() return t:dot_value(t) end,
        matmul = function() return t:matmul(t) end, softmax = function() return atomo.F.softmax(t) end,
        relu = function() return t:relu() end, sort = function() return t:sort() end,
        where = function() return atomo.where(atomo.ones(4, 4), t, t) end,
        linear = function() return atomo.F.linear(t, atomo.ones(4, 4)) end,
        cumsum = function() return t:cumsum(1) end, prod = function() return t:prod() end,
        remainder = function() return t % 2 end,
        index_add = function() return t:index_add(1, {1}, t:narrow(1, 1, 1)) end,
        round = function() return t:round() end, norm_along = function() return t:norm(2, 1) end,
        logsumexp = function() return t:logsumexp() end, tril = function() return t:tril() end,
        normalize = function() return atomo.F.normalize(t) end,
        uniform_ = function() return t:uniform_() end, var = function() return t:var() end,
        svd = function() return atomo.svd(t) end, push = function() atomo.exchange({}):push(1, t) end,
        allreduce = function() return atomo.mpi.world:allreduce(t, "sum") end,
        param = function() return atomo.param(t) end, requires = function() return t:requires_grad_() end,
        encode = function() return atomo.compressor("qsgd:bits=2"):encode(t) end,
      }
      for name, call in pairs(calls) do
        local ok, text = pcall(call)
        assert.is_false(ok, name)
        assert.is_truthy(tostring(text):find(dtype, 1, true), ("%s: %s"):format(name, tostring(text)))
      end
    end)

    it("takes no gradient: a tensor that requires one is refused, detached it is taken", function()
      local w = atomo.param {1, 2}
      fails("no gradient flows through " .. dtype, w.to, w, dtype)
      fails({dtype, "carries no gradient"}, function() atomo.zeros(2, dtype):copy_(w) end)
      local base = atomo.zeros(2)
      local view = base:narrow(1, 1, 2)
      base:copy_(w * 2) -- the view requires a gradient now
      fails("no gradient flows through " .. dtype, view.to, view, dtype)
      assert.same({1, 2}, w:detach():to(dtype):totable())
      assert.same({1, 2}, atomo.no_grad(function() return w:to(dtype) end):totable())
      local half = atomo.tensor({3, 4}, dtype)
      local y = w * half:to "f32"
      y:sum():backward()
      assert.same({3, 4}, w.grad:totable())
    end)

    it("is written to safetensors and read with or without its dtype", function()
      with_file("", function(path)
        local t = atomo.tensor({{1, -2.5}, {0.1, 1e-6}}, dtype)
        safetensors.save(path, {b = t:t(), a = atomo.ones(3), c = atomo.ones(1, "u8")})
        local kept, plain = safetensors.load(path, {keep_dtype = true}), safetensors.load(path)
        assert.equal(dtype, kept.b:dtype())
        assert.same(t:t():totable(), kept.b:totable())
        assert.equal("f32", plain.b:dtype())
        assert.same(t:t():totable(), plain.b:totable())
        fails("keep_dtype is 1, expected true or false", safetensors.load, path, {keep_dtype = 1})
        fails("expected only or keep_dtype", safetensors.load, path, {keep = true})
      end)
    end)

    it("is what a codec in Lua may send", function()
      local name = "half_of_" .. dtype
      atomo.codec(name, {
        encode = function(g) return g:to(dtype) end, decode = function(message) return message:to "f32" end,
      })
      local c, g = atomo.compressor(name), atomo.tensor {{1, 0.1}, {-2.5, 3}}
      local message = c:encode(g)
      assert.same(g:to(dtype):totable(), c:decode(message):totable())
    end)

    it("is sent between ranks as it is", function()
      local world, t = atomo.mpi.world, atomo.tensor({1, 2.5}, dtype)
      world:bcast(t, 0)
      assert.same({{1, 2.5}}, world:gather(t, 0):totable())
      assert.equal(dtype, world:allgather(t):dtype())
    end)
  end)
end

--- Returns the inputs of a case with its f32 tensors as `dtype`, and whether it has one.
local function converted(inputs, dtype)
  local list, any = {}, false
  for i, v in ipairs(inputs) do
    local float = atomo.is_tensor(v) and v:dtype() == "f32"
    list[i], any = float and v:detach():to(dtype) or v, any or float
  end
  return list, any
end

describe("every function of the edges' table", function()
  for dtype in pairs(formats) do
    it("that is given " .. dtype .. " names it in an error, or answers as of the same numbers in f32", function()
      local refused = 0
      for _, case in ipairs(edges.cases()) do
        local inputs, any = converted(case.inputs, dtype)
        local fn = rows.of(case.name).fn
        local ok, y = pcall(fn, unpack(inputs, 1, #case.inputs))
        if any and ok then
          local same_numbers = {}
          for i, v in ipairs(inputs) do same_numbers[i] = v:to "f32" end
          local want = fn(unpack(same_numbers)):to "f32"
          assert.is_nil(edges.difference(y:to "f32", want, 0, 0), case.name)
        elseif any then
          assert.is_truthy(tostring(y):find(dtype, 1, true), case.name .. ": " .. tostring(y))
          refused = refused + 1
        end
      end
      assert.is_true(refused > 300, refused)
    end)
  end
end)

describe("npy", function()
  it("writes f16, and names bf16, which NumPy does not have", function()
    with_file("", function(path)
      atomo.tensor({1, 0.5, -65504}, "f16"):save_npy(path)
      assert.same({1, 0.5, -65504}, atomo.from_npy(path):totable())
      fails("NumPy has no bf16", atomo.ones(2, "bf16").save_npy, atomo.ones(2, "bf16"), path)
    end)
  end)
end)
