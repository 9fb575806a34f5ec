-- Numbers from scripts where C wants integers: sizes, dimensions, indices, counts, seeds, elements of i32 and u8.
-- A value that is no whole number, or does not fit, is refused at the caller's line; int64_t and uint64_t are taken.
local atomo = require "atomo"
local number = require "atomo.core.number"
local F, nn = atomo.F, atomo.nn
local huge, nan = math.huge, 0 / 0

local function refused(what, fn, v)
  local ok, text = pcall(function() fn(v) end)
  assert.is_false(ok, ("%s takes %s"):format(what, tostring(v)))
  assert.matches("whole_numbers_spec.lua:%d+: ", text, what)
  return text
end

describe("elements", function()
  --- value -> what i32 and u8 hold of it (false: refused); f32 takes all but the last
  local values = {
    {0, 0, 0}, {-0, 0, 0}, {1, 1, 1}, {255, 255, 255}, {256, 256, false}, {300, 300, false}, {-1, -1, false},
    {2147483647, 2147483647, false}, {2147483648, false, false}, {-2147483648, -2147483648, false},
    {-2147483649, false, false}, {2.9, false, false}, {-0.5, false, false}, {2 ^ 53 + 2, false, false},
    {nan, false, false}, {huge, false, false}, {-huge, false, false}, {1e30, false, false},
    {7LL, 7, 7}, {7ULL, 7, 7}, {-7LL, -7, false}, {300LL, 300, false}, {4294967296LL, false, false},
    {3.4028235e38, false, false}, {1e39, false, false, true}, {-1e39, false, false, true},
    {9007199254740993LL, false, false, true}, {0xffffffffffffffffULL, false, false, true},
    {"7", false, false, true}, {print, false, false, true},
  }
  local ways = {
    ["tensor of a table"] = function(v, dtype) return atomo.tensor({{v, v}}, dtype) end,
    ["full"] = function(v, dtype) return atomo.full({1, 2}, v, dtype) end,
    ["fill_"] = function(v, dtype) return atomo.zeros(1, 2, dtype):fill_(v) end,
    ["fill_ of a view"] = function(v, dtype) return atomo.zeros(2, 2, dtype):t():narrow(1, 2, 1):fill_(v) end,
    ["copy_"] = function(v, dtype) return atomo.zeros(1, 2, dtype):copy_(v) end,
    ["set"] = function(v, dtype)
      local t = atomo.zeros(1, 2, dtype)
      t:set(1, 1, v)
      return t:set(1, 2, v)
    end,
  }
  for way, make in pairs(ways) do
    it("that " .. way .. " takes fit their dtype", function()
      for _, case in ipairs(values) do
        local v = case[1]
        for dtype, want in pairs {i32 = case[2], u8 = case[3], f32 = not case[4] and tonumber(v)} do
          local what = ("%s of %s in %s"):format(way, tostring(v), dtype)
          if want == false then
            local text = refused(what, function() make(v, dtype) end)
            if type(v) ~= "string" and type(v) ~= "function" then assert.matches("does not fit " .. dtype, text) end
          else
            local got = make(v, dtype):get(1, 2)
            if dtype == "f32" then want = require("ffi").new("float[1]", want)[0] end
            assert.is_true(got == want or (got ~= got and want ~= want), what .. ": " .. tostring(got))
          end
        end
      end
    end)
  end

  it("of a boolean are 1 and 0", function()
    assert.same({1, 0}, atomo.tensor({true, false}, "u8"):totable())
  end)

  it("of a refused value leave the tensor as it was", function()
    local t = atomo.tensor({1, 2, 3}, "u8")
    refused("fill_", function() t:fill_(256) end)
    refused("set", function() t:set(2, 2.5) end)
    refused("copy_", function() t:copy_(-1) end)
    assert.same({1, 2, 3}, t:totable())
  end)

  it("converted between dtypes are truncated and saturated, and NaN is 0, as the guide says", function()
    local t = atomo.tensor {1.9, -1.9, 300, -5, 1e20, nan, huge, -huge}
    assert.same({1, -1, 300, -5, 2147483647, 0, 2147483647, -2147483648}, t:int():totable())
    assert.same({1, 0, 255, 0, 255, 0, 255, 0}, t:to("u8"):totable())
    assert.same({1, 0, 255, 0, 255, 0, 255, 0}, atomo.zeros(8, "u8"):copy_(t):totable())
    assert.same({255, 0}, atomo.tensor({300, -1}, "i32"):to("u8"):totable())
  end)

  it("of i32 meet numbers that are i32 only", function()
    local t = atomo.tensor({1, 2}, "i32")
    for _, name in ipairs {"add_", "sub_", "mul_", "maximum_", "minimum_", "add", "sub", "mul", "eq", "lt"} do
      for _, v in ipairs {0.5, nan, huge, 2 ^ 31, 2147483648LL} do
        refused(name, function() t[name](t, v) end)
      end
      assert.is_true(pcall(t[name], t:clone(), 2LL), name)
    end
    assert.same({3, 4}, (t + 2ULL):totable())
    assert.same({1, 2}, t:totable())
  end)
end)

describe("whole numbers", function()
  local x, labels = atomo.rand(2, 4), atomo.tensor({0, 1}, "i32")
  local image, sequence = atomo.rand(1, 4, 4, 2), atomo.rand(1, 3, 4)
  local c = atomo.compressor "topk:ratio=2,ef=true"
  c:encode(x)
  local set = atomo.data.set(atomo.zeros(4, 2, 2, 1, "u8"), atomo.zeros(4, "i32"))
  local world = atomo.mpi.world

  --- {name, call, a value that it takes}
  local places = {
    {"zeros", function(v) return atomo.zeros(v, 2) end, 3}, {"ones", function(v) return atomo.ones(2, v) end, 0},
    {"empty", function(v) return atomo.empty({v}) end, 3}, {"full", function(v) return atomo.full({2, v}, 1) end, 3},
    {"rand", function(v) return atomo.rand(v) end, 3}, {"randn", function(v) return atomo.randn({v, 1}) end, 3},
    {"manual_seed", function(v) atomo.manual_seed(v) end, 7},
    {"set_num_threads", function(v) atomo.set_num_threads(v) end, 1},
    {"view", function(v) return x:view(v, 2) end, 4}, {"reshape", function(v) return x:t():reshape({v, 2}) end, 4},
    {"expand", function(v) return x:select(1, 1):expand(v, 4) end, 3},
    {"narrow: dimension", function(v) return x:narrow(v, 1, 1) end, 2},
    {"narrow: start", function(v) return x:narrow(1, v, 1) end, 2},
    {"narrow: length", function(v) return x:narrow(1, 1, v) end, 2},
    {"select: dimension", function(v) return x:select(v, 1) end, 2},
    {"select: index", function(v) return x:select(1, v) end, 2},
    {"transpose", function(v) return x:transpose(1, v) end, 2}, {"permute", function(v) return x:permute(v, 1) end, 2},
    {"squeeze", function(v) return atomo.zeros(1, 1):squeeze(v) end, 2},
    {"unsqueeze", function(v) return x:unsqueeze(v) end, 2}, {"size", function(v) return x:size(v) end, 2},
    {"get", function(v) return x:get(1, v) end, 2}, {"set: index", function(v) return x:set(v, 1, 0.5) end, 2},
    {"sum", function(v) return x:sum(v) end, 2}, {"mean", function(v) return x:mean(v) end, 2},
    {"max", function(v) return x:max(v) end, 2}, {"argmin", function(v) return x:argmin(v) end, 2},
    {"cat", function(v) return atomo.cat({x, x}, v) end, 2},
    {"index_select: dimension", function(v) return x:index_select(v, {1}) end, 2},
    {"index_select: index", function(v) return x:index_select(1, {1, v == true and "x" or v}) end, 2},
    {"irfft", function(v) return atomo.irfft(atomo.rfft(x), v) end, 4},
    {"softmax", function(v) return F.softmax(x, v) end, 2},
    {"log_softmax", function(v) return F.log_softmax(x, v) end, 1},
    {"cross_entropy: ignore_index", function(v) return F.cross_entropy(x, labels, {ignore_index = v}) end, 1},
    {"linear_cross_entropy: ignore_index", function(v)
      return F.linear_cross_entropy(x, x, labels, {ignore_index = v})
    end, 1},
    {"nll_loss: ignore_index", function(v) return F.nll_loss(x, labels, {ignore_index = v}) end, 1},
    {"accuracy: ignore_index", function(v) return F.accuracy(x, labels, {ignore_index = v}) end, 1},
    {"embedding: padding_idx", function(v) return F.embedding(labels, x, v) end, 1},
    {"group_norm", function(v) return F.group_norm(x, v) end, 2},
    {"layer_norm", function(v) return F.layer_norm(x, v) end, 4},
    {"attention: heads", function(v)
      return F.scaled_dot_product_attention(sequence, sequence, sequence, {heads = v})
    end, 2},
    {"conv2d: stride", function(v) return F.conv2d(image, atomo.rand(1, 1, 1, 2), nil, {stride = v}) end, 2},
    {"conv2d: groups", function(v) return F.conv2d(image, atomo.rand(2, 1, 1, 1), nil, {groups = v}) end, 2},
    {"max_pool2d", function(v) return F.max_pool2d(image, v) end, 2},
    {"avg_pool2d: divisor", function(v) return F.avg_pool2d(image, 2, {divisor_override = v}) end, 2},
    {"adaptive_avg_pool2d", function(v) return F.adaptive_avg_pool2d(image, v) end, 2},
    {"Linear", function(v) return nn.Linear(v, 2) end, 3}, {"Linear: out", function(v) return nn.Linear(2, v) end, 3},
    {"Conv2d", function(v) return nn.Conv2d(v, 2, 3) end, 2}, {"Flatten", function(v) return nn.Flatten(v) end, 2},
    {"BatchNorm2d", function(v) return nn.BatchNorm2d(v) end, 2}, {"Softmax", function(v) return nn.Softmax(v) end, 1},
    {"Embedding", function(v) return nn.Embedding(v, 2) end, 3},
    {"Embedding: padding_idx", function(v) return nn.Embedding(4, 2, {padding_idx = v}) end, 3},
    {"LSTM: layers", function(v) return nn.LSTM(2, 2, {num_layers = v}) end, 2},
    {"encode: step", function(v) return c:encode(x, {step = v}) end, 2},
    {"encode: rank", function(v) return c:encode(x, {rank = v}) end, 2},
    {"encode: tensor", function(v) return c:encode(x, {tensor = v}) end, 1},
    {"stats", function(v) return c:stats(v) end, 1}, {"residual", function(v) return c:residual(v) end, 1},
    {"compressor: seed", function(v) return atomo.compressor("randk:ratio=2", {seed = v}) end, 2},
    {"synthetic", function(v) return atomo.data.synthetic {train = v, test = 1} end, 2},
    {"synthetic: seed", function(v) return atomo.data.synthetic {train = 1, test = 1, seed = v} end, 2},
    {"data.set: classes", function(v) return atomo.data.set(set.images, set.labels, v) end, 2},
    {"loader: batch", function(v) return atomo.data.loader {set = set, batch = v} end, 2},
    {"loader: seed", function(v) return atomo.data.loader {set = set, seed = v} end, 2},
    {"mpi: root", function(v) return world:bcast(x, v) end, 0}, {"mpi: tag", function(v)
      local request = world:isend(x, 0, v)
      world:recv(atomo.zeros(2, 4), 0, v)
      request:wait()
    end, 3},
    {"mpi: color", function(v) return world:split(v):close() end, 3},
  }
  for _, place in ipairs(places) do
    it(("%s takes and refuses"):format(place[1]), function()
      local call, good = place[2], place[3]
      for _, v in ipairs {good, require("ffi").new("int64_t", good), require("ffi").new("uint64_t", good)} do
        local ok, text = pcall(call, v)
        assert.is_true(ok, ok or ("%s refuses %s: %s"):format(place[1], tostring(v), tostring(text)))
      end
      for _, v in ipairs {good + 0.5, nan, huge, -huge, 1e300, 2 ^ 60, tostring(good) .. "x", {good, "x"}, true,
        9007199254740993LL, 0xffffffffffffffffULL} do
        refused(place[1], call, v)
      end
    end)
  end

  it("are checked by number.whole", function()
    for _, case in ipairs {{3, 3}, {-0, 0}, {2 ^ 53, 2 ^ 53}, {2 ^ 53 + 2}, {nan}, {huge}, {1.5}, {"3"}, {5LL, 5},
      {5ULL, 5}, {9007199254740992LL, 2 ^ 53}, {9007199254740993LL}, {-9223372036854775807LL - 1},
      {0x8000000000000000ULL}} do
      assert.equal(case[2], number.whole(case[1]), tostring(case[1]))
    end
    assert.equal(math.huge, 1 / number.whole(-0))
    assert.is_nil(number.whole(0, 1))
    assert.is_nil(number.whole(4, 1, 3))
  end)
end)
