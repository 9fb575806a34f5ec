--- Best time of a training step's matrix products, each by itself (scripts/bench_nn.lua --limit).
--   local products = require("atomo.tools.product_limit").record(run_steps)
--   local part = require("atomo.tools.product_limit").new(products, steps)  -- a part of tools/step_limit.lua's limit
-- The runtime records every product that the steps compute (runtime/linalg/product_record.c), so none is forgotten:
-- those of linear, attention, lstm, gru, matmul, einsum and linear_cross_entropy, forward and backward. Products inside
-- convolutions are tools/conv_limit.lua's. Each is run again by the same library, with the same shape, layout and
-- threads, on the same operands each time, so that they are in the caches as far as they fit; the fastest of a few runs
-- is its best. Operands have the format that the library reads: rounding to bf16 is not counted.
local f = require "atomo.ffi"
local median = require "atomo.core.median"
local ffi, C, check = f.ffi, f.C, f.check

local Part = {}
Part.__index = Part

local ENOUGH, MOST_RUNS = 0.01, 20 -- seconds for which a product is run again in a round, and number of runs

--- Returns the products that fn computes, in the order of their first calls: a list of atomo_product
--- (runtime/atomo_bindings.h), one for all products of the same shape and layout. Also raises what fn raises.
---@param fn function
local function record(fn)
  check(C.atomo_products_record(1))
  local ok, why = pcall(fn)
  local rc = C.atomo_products_record(0)
  if not ok then error(why, 0) end
  check(rc)
  local list = {}
  for i = 1, C.atomo_products_recorded() do
    list[i] = ffi.new "atomo_product"
    check(C.atomo_products_get(i - 1, list[i]))
  end
  return list
end

--- Returns the multiplications and additions of the products of a record: 2 m n k for each call.
---@param p any  atomo_product
local function flops(p) return 2 * p.m * p.n * p.k * p.calls end

--- Makes the part of products recorded in training steps; nil if there are none.
---@param products any[]    result of record
---@param steps integer     number of training steps in it
local function new(products, steps)
  if #products == 0 then return nil end
  local self = setmetatable({name = "products", rows = {}, seconds = 0, inside = 0, flops = 0}, Part)
  for i, p in ipairs(products) do
    -- Threads of a team run at the same time, each its own products.
    self.rows[i] = {product = p, calls = p.calls / steps, weight = p.calls / steps / p.team, rounds = {},
      inside = p.seconds / p.calls}
    self.flops = self.flops + flops(p) / steps
  end
  return self
end

--- Returns the seconds of a product, the fastest of some runs after one that warms up.
---@param p any  atomo_product
local function time(p)
  local one = ffi.new("double[?]", MOST_RUNS)
  local threads = C.atomo_num_threads()
  if p.team > 1 then check(C.atomo_set_num_threads(1)) end
  local rc = C.atomo_product_time(p, 1, one)
  local runs = math.max(2, math.min(MOST_RUNS, math.floor(ENOUGH / math.max(one[0], 1e-9))))
  if rc == 0 then rc = C.atomo_product_time(p, runs, one) end
  if p.team > 1 then C.atomo_set_num_threads(threads) end
  check(rc)
  local best = math.huge
  for i = 0, runs - 1 do best = math.min(best, one[i]) end
  return best
end

--- Times every product once more.
function Part:run_round()
  for _, row in ipairs(self.rows) do row.rounds[#row.rounds + 1] = time(row.product) end
end

--- Sets what the rounds say: self.seconds, the best time of a step's products, and self.inside, their time in the step.
function Part:conclude()
  for _, row in ipairs(self.rows) do
    row.best = median(row.rounds)
    self.seconds = self.seconds + row.weight * row.best
    self.inside = self.inside + row.weight * row.inside
  end
end

--- Returns the seconds of all products of a step in round r.
function Part:seconds_of_round(r)
  local sum = 0
  for _, row in ipairs(self.rows) do sum = sum + row.weight * row.rounds[r] end
  return sum
end

local engines = {[C.ATOMO_PRODUCT_BLAS] = "blas", [C.ATOMO_PRODUCT_SGEMM] = "sgemm", [C.ATOMO_PRODUCT_BF16] = "bf16"}

--- Returns the text of a record: "bf16 [2048,384] x [1536,384]^T + bias", with the shapes of op(a) and op(b).
---@param p any  atomo_product
local function name_of(p)
  local a = p.ta ~= 0 and ("[%.0f,%.0f]^T"):format(p.k, p.m) or ("[%.0f,%.0f]"):format(p.m, p.k)
  local b = p.tb ~= 0 and ("[%.0f,%.0f]^T"):format(p.n, p.k) or ("[%.0f,%.0f]"):format(p.k, p.n)
  local rest = (p.adds ~= 0 and " + c" or "") .. (p.biased ~= 0 and " + bias" or "")
  return ("%s %s x %s%s"):format(engines[p.engine], a, b, rest)
end

--- Returns a table with a line for every product, those that take longest first; best times are medians over the
--- rounds, those in the step are means.
function Part:text()
  local rows = {unpack(self.rows)}
  table.sort(rows, function(x, y) return x.weight * x.best > y.weight * y.best end)
  local lines = {("%-50s %6s %9s %9s %8s %9s %6s"):format("product, us a call", "calls", "best", "in step", "GFLOP/s",
    "ms a step", "share")}
  for _, row in ipairs(rows) do
    local p = row.product
    lines[#lines + 1] = ("%-50s %6.0f %9.1f %9.1f %8.0f %9.2f %5.0f%%"):format(name_of(p), row.calls, 1e6 * row.best,
      1e6 * row.inside, 2e-9 * p.m * p.n * p.k / row.best, 1e3 * row.weight * row.best, 100 * row.best / row.inside)
  end
  return table.concat(lines, "\n")
end

--- Returns the part's share of the limit in one line.
function Part:summary()
  return ("best of all products %.1f ms a step (%.2f GFLOP, %.0f GFLOP/s), in the step %.1f ms"):format(
    1e3 * self.seconds, 1e-9 * self.flops, 1e-9 * self.flops / self.seconds, 1e3 * self.inside)
end

return {record = record, new = new, flops = flops, name_of = name_of}
