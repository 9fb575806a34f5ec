-- The matrix products of a training step: which are recorded, and bench_nn.lua --limit (atomo.tools.product_limit,
-- atomo.tools.step_limit, runtime/linalg/product_record.c).
-- test: slow
local atomo = require "atomo"
local ffi = require "ffi"
local C = require("atomo.ffi").C
local product_limit = require "atomo.tools.product_limit"
local step_limit = require "atomo.tools.step_limit"
local root = require "support.root"
local spawn = require "support.spawn"
local nn, F = atomo.nn, atomo.F

local function texts(batch, length, vocab)
  local x = atomo.zeros({batch, length}, "i32")
  local p = x:data()
  for i = 0, x:numel() - 1 do p[i] = (i * 7) % vocab end
  return x
end

--- Returns the multiplications and additions of the products of a step of `net`, and the loss.
local function counted(net, x, precision)
  local loss
  local products = product_limit.record(function()
    atomo.scope(function()
      local l = atomo.autocast(precision, function() return F.cross_entropy(net(x), x) end)
      l:backward()
      loss = l:item()
    end)
  end)
  local sum = 0
  for _, p in ipairs(products) do sum = sum + product_limit.flops(p) end
  return sum, loss
end

describe("product_limit", function()
  local B, T, W, H, L, V = 3, 130, 24, 3, 2, 17

  for _, precision in ipairs {"fp32", "bf16"} do
    it("counts every product of a transformer in " .. precision, function()
      atomo.manual_seed(1)
      local net = require("models.transformer").transformer {vocab = V, width = W, layers = L, heads = H, length = T}
      -- Linear: y, gx and gw of 3 W^2 (qkv), W^2, 4 W^2 and 4 W^2. Attention: 2 products forward and 5 backward, of 64
      -- rows each with the keys up to the last of them.
      local linear, head = 3 * 2 * B * T * 12 * W * W, 3 * 2 * B * T * W * V
      local attention = 7 * 2 * B * W * (64 * 64 + 64 * 128 + 2 * 130)
      assert.equal(L * (linear + attention) + head, (counted(net, texts(B, T, V), precision)))
    end)

    it("counts every product of an LSTM and a GRU in " .. precision, function()
      local lstm = require("models.lstm").lstm {vocab = V, width = W, layers = L}
      local head = 3 * 2 * B * T * W * V
      assert.equal(L * 3 * 2 * B * T * 4 * W * (W + W) + head, (counted(lstm, texts(B, T, V), precision)))
      local Gru = nn.Module:extend "GruModel"
      function Gru:init()
        self.tokens, self.gru, self.head = nn.Embedding(V, 8), nn.GRU(8, W, {batch_first = true}), nn.Linear(W, V)
      end
      function Gru:forward(x) return self.head((self.gru(self.tokens(x)))) end
      assert.equal(3 * 2 * B * T * 3 * W * (8 + W) + head, (counted(Gru(), texts(B, T, V), precision)))
    end)
  end

  it("counts products of matmul and linear_cross_entropy", function()
    local a, b = atomo.param(atomo.randn(2, 5, 7)), atomo.param(atomo.randn(2, 7, 3))
    local x, w, labels = atomo.param(atomo.randn(6, 4)), atomo.param(atomo.randn(9, 4)), atomo.zeros(6, "i32")
    local sum = 0
    for _, p in ipairs(product_limit.record(function()
      a:matmul(b):sum():backward()
      F.linear_cross_entropy(x, w, labels):backward()
    end)) do sum = sum + product_limit.flops(p) end
    assert.equal(3 * 2 * 2 * 5 * 7 * 3 + 3 * 2 * 6 * 4 * 9, sum)
  end)

  it("leaves the products inside convolutions to conv_limit", function()
    local before = nn.conv_engine()
    for _, engine in ipairs {"gemm", "winograd"} do
      nn.set_conv_engine(engine)
      local conv, x = nn.Conv2d(64, 64, 3, {padding = 1}), atomo.randn(2, 8, 8, 64)
      assert.equal(0, #product_limit.record(function() conv(x):sum():backward() end), engine)
    end
    nn.set_conv_engine(before)
  end)

  it("changes no bit, and stops when the steps raise", function()
    local net = require("models.lstm").lstm {vocab = V, width = W}
    local x = texts(B, T, V)
    local plain = F.cross_entropy(net(x), x):item()
    local _, recorded = counted(net, x, "fp32")
    assert.equal(plain, recorded)
    assert.has_error(function() product_limit.record(function() error("stop here", 0) end) end, "stop here")
    net(x)
    assert.equal(0, C.atomo_products_recorded())
  end)

  it("names shapes, layouts and what is added, and counts calls", function()
    local x, w, b = atomo.randn(4, 5), atomo.param(atomo.randn(6, 5)), atomo.param(atomo.zeros(6))
    local list = product_limit.record(function()
      for _ = 1, 3 do F.linear(x, w, b):sum():backward() end
    end)
    assert.equal(2, #list) -- x needs no gradient
    assert.equal("sgemm [4,5] x [6,5]^T + c", product_limit.name_of(list[1]))
    assert.equal("sgemm [4,6]^T x [4,5]", product_limit.name_of(list[2]))
    assert.equal(3, list[1].calls)
    assert.is_true(list[1].seconds > 0)
  end)

  it("times products that threads compute beside each other with one thread", function()
    local threads = C.atomo_num_threads()
    atomo.set_num_threads(2)
    local list = product_limit.record(function()
      F.scaled_dot_product_attention(atomo.randn(2, 128, 64), atomo.randn(2, 128, 64), atomo.randn(2, 128, 64))
    end)
    local part = product_limit.new(list, 1)
    part:run_round()
    part:conclude()
    assert.equal(2, C.atomo_num_threads())
    atomo.set_num_threads(threads)
    for _, row in ipairs(part.rows) do
      assert.equal(2, row.product.team)
      assert.equal(row.calls / 2, row.weight)
      assert.is_true(row.best > 0)
    end
  end)

  it("refuses records that are none", function()
    local seconds = ffi.new "double[1]"
    local function refused(text, change)
      local p = ffi.new("atomo_product", {engine = C.ATOMO_PRODUCT_SGEMM, team = 1, m = 2, n = 3, k = 4, lda = 4,
        ldb = 3, ldc = 3})
      assert.equal(0, C.atomo_product_time(p, 1, seconds))
      for key, value in pairs(change) do p[key] = value end
      local rc = C.atomo_product_time(p, change.team or 1, seconds)
      assert.equal("EARG", ffi.string(C.atomo_status_name(rc)))
      assert.equal(text, ffi.string(C.atomo_last_error()))
    end
    refused("product_time: engine 3, expected 0 to 2", {engine = 3})
    refused("product_time: 0 runs, expected 1 or more", {team = 0})
    refused("product_time: operand 1 is [2,4] with rows 3 apart", {lda = 3})
    refused("product_time: operand 1 is [2,0] with rows 4 apart", {k = 0})
    refused("product_time: a product that adds has no bias", {adds = 1, biased = 1})
    product_limit.record(function() end)
    assert.equal("EARG", ffi.string(C.atomo_status_name(C.atomo_products_get(0, ffi.new "atomo_product"))))
    assert.equal("products_get: record 0, there are 0", ffi.string(C.atomo_last_error()))
  end)
end)

describe("step_limit", function()
  it("computes the share of each round from that round's times, and prints the median", function()
    local net, x = nn.Linear(64, 64), atomo.randn(32, 64)
    local parts = step_limit.parts(2, function() atomo.scope(function() net(x):sum():backward() end) end)
    assert.equal(1, #parts)
    local seconds = {2, 4, 8}
    local limit = step_limit.measure(parts, {rounds = 3, step = function() return table.remove(seconds, 1) end})
    for r = 1, 3 do assert.near(parts[1]:seconds_of_round(r) / 2 ^ r, limit.shares[r], 1e-15) end
    assert.equal(2 * 2 * 32 * 64 * 64, parts[1].flops)
    assert.truthy(limit:text():find("whole step 4000.0 ms; share of the limit 0.00 (3 rounds", 1, true))
  end)
end)

describe("bench_nn.lua --limit", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local script = spawn.quote(root .. "scripts/bench_nn.lua")

  for _, model in ipairs {"lstm", "transformer"} do
    it("prints a share for each precision of the " .. model, function()
      local out, code = spawn.host(("%s --model %s --batch 1 --steps 1 --rounds 2 --precision both --limit"):format(
        script, model))
      assert.equal(0, code, out)
      local shares = 0
      for share in out:gmatch "share of the limit (%S+)" do
        shares = shares + 1
        assert.is_true(tonumber(share) > 0 and tonumber(share) < 1.2, share)
      end
      assert.equal(2, shares, out)
    end)
  end

  it("refuses options that would do nothing", function()
    local out, code = spawn.host(script .. " --model mlp --rounds 3")
    assert.is_true(code ~= 0)
    assert.matches("%-%-rounds is the number of rounds of %-%-limit or %-%-beside, neither of which is given", out)
    out, code = spawn.host(script .. " --model mlp --activations bf16")
    assert.is_true(code ~= 0)
    assert.matches("%-%-activations bf16 needs %-%-precision bf16 or both", out)
    out, code = spawn.host(script .. " --model mlp --limit --rounds 0")
    assert.is_true(code ~= 0)
    assert.matches("rounds", out)
  end)
end)
