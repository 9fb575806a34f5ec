-- Every step keeps to its budget, by 10 % at most, for all families, whatever came before. The gradients change from
-- step to step; some steps are zero, 1000 times larger or 1000 times smaller, and some lack layers or all data.
-- Atoms are indivisible: budgets here hold 12 of the longest atoms. Deterministic seeds.
local atomo = require "atomo"
local T = require "atomo.tensor"

local shapes = {{64, 3, 3, 32}, {128, 64}, {10, 128}, {64, 3, 3, 64}, {16, 3, 3, 3}}
local period = 40
local dense = 0
local kept = {} -- [step in the period][tensor]
for k = 0, period - 1 do
  kept[k] = {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(k * 100 + i)
    local g = atomo.randn(shape)
    kept[k][i] = g:mul_(g:abs())
    if k == 0 then dense = dense + 4 * g:numel() end
  end
end

--- Returns the factor of the gradient of tensor i in step k.
local function size_of(k, i)
  local size, at = math.exp(0.4 * math.sin(1.7 * k) + 0.3 * math.cos(2.9 * k) + 0.3 * math.sin(k * i)), k % period
  if at == 8 or at == 9 or (at >= 34 and at % 2 == 0) then return 0 end -- gradient 0, as of a rank without images
  if at == 15 then return 1000 * size end
  if at == 20 then return size / 1000 end
  if at == 25 and i == 4 then return 1000 * size end
  if at == 30 and (i == 1 or i == 4) then return 0 end
  return size
end

--- Calls look(bytes / budget, step in the period) for every step.
local function each_step(spec, count, look)
  local c = atomo.compressor(spec)
  c:prepare(shapes, nil, {step_bytes = dense, dense_bytes = 0})
  local out, budget = T.empty({c:wire_max()}, "u8"), dense / spec:match "ratio=(%d+)"
  for k = 0, count - 1 do
    local n = 0
    c:begin_step(k, 0)
    for i = #shapes, 1, -1 do
      local g = kept[k % period][i] * size_of(k, i)
      n = n + c:push(i, g, out, n)
      g:free()
    end
    c:end_step()
    look(n / budget, k % period)
  end
end

local specs = {"svd:ratio=8", "svd:ratio=32", "svd:bits=32,ratio=8", "svd:bits=4,ratio=64", "svd:every=4,ratio=32",
  "svd:ratio=32,ef=true", "svd:fold=paper,ratio=8", "rows:ratio=8", "rows:ratio=16", "rows:ratio=64",
  "rows:bits=32,ratio=8"}
for _, family in ipairs {"entry", "taps", "rotated", "fourier", "dct", "hadamard", "haar", "auto"} do
  specs[#specs + 1] = family .. ":ratio=8"
  specs[#specs + 1] = family .. ":ratio=64"
end

describe("a step's budget", function()
  for _, spec in ipairs(specs) do
    it("is exceeded by 10 % in no step: " .. spec, function()
      local sum, full = 0, 0
      each_step(spec, period, function(spent, at)
        assert.is_true(spent < 1.1, ("step %d of %d takes %.3f of the budget"):format(at, period, spent))
        if size_of(at, 1) > 0 then sum, full = sum + spent, full + 1 end
      end)
      assert.is_true(sum / full > 0.93, ("steps with gradients take %.3f of the budget"):format(sum / full))
    end)
  end

  it("is exceeded by more with independent draws of long atoms", function()
    for _, spec in ipairs {"svd:ratio=32", "rows:ratio=16"} do
      local over = 0
      each_step(spec .. ",sampling=bernoulli", period, function(spent) over = over + (spent > 1.1 and 1 or 0) end)
      assert.is_true(over > 0, spec)
    end
  end)
end)

describe("a tensor whose gradient was zero in the last steps", function()
  -- Which of three equal tensors have a gradient: branches of a network that differ from step to step.
  local used = {"123", "123", "1", "2", "3", "123", "12", "12", "12", "3", "13", "2", "2", "2", "2", "1"}
  local shape, none = {48, 48}, atomo.zeros(48, 48)
  local whole = 3 * 4 * 48 * 48

  --- Returns the least message of a tensor with a gradient, over the tensor's share of the budget, and the most of a
  --- step over the budget.
  local function extremes(spec, first, last, by)
    local c = atomo.compressor(spec)
    c:prepare({shape, shape, shape}, nil, {step_bytes = whole, dense_bytes = 0})
    local out, budget, least, most = T.empty({c:wire_max()}, "u8"), whole / spec:match "ratio=(%d+)", math.huge, 0
    for k = 0, 3 * #used - 1 do
      local sent = 0
      c:begin_step(k, 0)
      for i = first, last, by do
        local is_used = used[k % #used + 1]:find(i)
        atomo.manual_seed(k * 10 + i)
        local n = c:push(i, is_used and atomo.randn(shape) or none, out, 0)
        if is_used then least = math.min(least, n / (budget / 3)) end
        sent = sent + n
      end
      c:end_step()
      most = math.max(most, sent / budget)
    end
    return least, most
  end

  for _, family in ipairs {"entry", "taps", "rotated", "dct", "svd", "rows", "auto"} do
    it("has bits when it comes again: " .. family, function()
      for _, order in ipairs {{1, 3, 1}, {3, 1, -1}} do
        local least, most = extremes(family .. ":ratio=8", unpack(order))
        assert.is_true(least > 0.2, ("a tensor has %.3f of its share"):format(least))
        assert.is_true(most < 1.1, ("a step takes %.3f of the budget"):format(most))
      end
    end)
  end
end)

describe("sampling=auto", function()
  it("draws entries independently, and long atoms of a tensor with one uniform", function()
    atomo.manual_seed(1)
    local g = atomo.randn(32, 64)
    local drawn = {entry = "bernoulli", ["taps:step=0"] = "bernoulli", svd = "systematic", rows = "systematic"}
    for spec, same in pairs(drawn) do
      local glue = spec:find ":" and "," or ":"
      local bytes = {}
      for _, sampling in ipairs {"auto", "bernoulli", "systematic"} do
        local c = atomo.compressor(spec .. glue .. "ratio=9,sampling=" .. sampling, {seed = 4})
        bytes[sampling] = c:encode(g, {step = 3, tensor = 1}):bytes()
      end
      assert.equal(bytes[same], bytes.auto, spec)
      assert.not_equal(bytes.bernoulli, bytes.systematic, spec)
      assert.equal(bytes.auto, atomo.compressor(spec .. glue .. "ratio=9", {seed = 4}):encode(g, {step = 3, tensor = 1})
        :bytes(), spec)
    end
  end)
end)
