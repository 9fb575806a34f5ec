-- The mean of an exchange's results is the mean of the ranks' gradients, in every topology with every unbiased
-- compressor, also if averages are encoded again. With error feedback, the sum of all results and of the residuals of
-- both ways equals the sum of the gradients. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local world = atomo.mpi.world
local matrix = require "support.exchange_matrix"
local name = matrix.name

local shapes = {{24, 30}, {5, 3, 3, 4}}

atomo.basis("mean-reversed", {
  analyze = function(g) return g:view(-1) * -1 end,
  synthesize = function(c, shape) return (c * -1):view(shape) end,
})
-- The first column is always sent, the rest sampled by entries: two messages per tensor, with independent draws.
atomo.decomposition("mean-rows", {
  decompose = function(g)
    local flat = g:view(g:size(1), -1)
    local lambda = flat:select(2, 1):contiguous()
    return lambda, atomo.arange(g:size(1)):view(-1, 1)
  end,
  reconstruct = function(lambda, rows, shape)
    local out = atomo.zeros(shape)
    local flat = out:view(shape[1], -1)
    for k = 1, lambda:numel() do flat:set(rows:get(k, 1) + 1, 1, lambda:get(k)) end
    return out
  end,
  rest = true,
})

local more = {"fp16:round=stochastic", "bf16:round=stochastic", "randk:ratio=4", "randk:k=7", "svd:atoms=2,bits=32",
  "entry:bytes=700,sampling=systematic", "mean-reversed:ratio=4", "mean-rows:ratio=4"}

local function gradients()
  local list = {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(900 + 100 * i + world.rank)
    list[i] = atomo.randn(shape):add_(atomo.full(shape, 0.2 * i))
  end
  return list
end

local function average_of(grads)
  local list = {}
  for i, g in ipairs(grads) do
    list[i] = g:clone()
    world:allreduce(list[i], "sum")
    list[i]:mul_(1 / world.size)
  end
  return list
end

local function run(ex, grads)
  for i = #grads, 1, -1 do ex:push(i, grads[i]) end
  ex:finish()
end

local function inner(a, b) return a:view(-1):dot(b:view(-1)):item() end

describe("the mean of the exchanged gradients", function()
  local DRAWS, MORE = 60, 1000

  -- Per tensor, the mean of <u, ghat - average> over 60 draws in standard errors, for u the average itself (finds wrong
  -- factors) and for a random u (finds other errors). With 59 degrees of freedom |t| > 6.2 has probability 6e-8; for 20
  -- compressors, 9 topologies, 2 tensors and 2 directions that is 5e-5 per run. Long atoms have few outcomes, of which
  -- rare ones may not occur in 60 draws: a score above the limit is measured again over 1000, where a bias has 4 times
  -- the score.
  local function worst_score(ex, draws)
    local grads, work, directions, sums = gradients(), {}, {}, {}
    local average = average_of(grads)
    for i, g in ipairs(grads) do
      work[i] = g:clone()
      atomo.manual_seed(77 + i)
      directions[2 * i - 1], directions[2 * i] = average[i], atomo.randn(g:shape())
    end
    for k = 1, #directions do sums[k] = {sum = 0, square = 0, at = inner(directions[k], average[math.ceil(k / 2)])} end
    for _ = 1, draws do
      for i, g in ipairs(grads) do work[i]:copy_(g) end
      run(ex, work)
      for k, s in ipairs(sums) do
        local x = inner(directions[k], work[math.ceil(k / 2)]) - s.at
        s.sum, s.square = s.sum + x, s.square + x * x
      end
    end
    local worst = 0
    for _, s in ipairs(sums) do
      local mean = s.sum / draws
      local error = math.sqrt(math.max(s.square / draws - mean * mean, 1e-10 * s.at * s.at) / (draws - 1))
      worst = math.max(worst, math.abs(mean) / error)
    end
    return worst
  end

  for _, compress in ipairs(matrix.compressors(more)) do
    if atomo.compressor(compress).unbiased then -- the biased ones say so
      it("is the gradients', by " .. compress, function()
        for _, o in ipairs(matrix.topologies) do
          if matrix.possible(o, compress) then
            local _, ex = matrix.exchange(o, {compress = compress, min_size = 30, seed = 5})
            local t = worst_score(ex, DRAWS)
            if t >= 6.2 then t = worst_score(ex, MORE) end
            assert.is_true(t < 6.2, ("%s: %g standard errors"):format(name(o, compress), t))
          end
        end
      end)
    end
  end
end)

describe("with error feedback", function()
  local feeding = {"randk:ratio=8,ef=true", "powersgd:ef=true", "topk:ratio=4,ef=true", "signsgd:ef=true",
    "qsgd:bits=4,ef=true", "svd:ratio=4,ef=true", "fp16:ef=true", "mean-reversed:ratio=4,ef=true"}

  --- Returns the sum of a codec's residuals, and the sum of their magnitudes.
  local function held(codec)
    local sum, size = 0, 0
    for k in pairs(codec and codec.shapes or {}) do
      local r = codec:residual(k)
      sum, size = sum + r:sum():item(), size + r:abs():sum():item()
    end
    return sum, size
  end

  for _, compress in ipairs(feeding) do
    it("the applied averages plus the memories of both ways are the sum of all gradients, by " .. compress, function()
      for _, o in ipairs(matrix.topologies) do
        if matrix.possible(o, compress) and o.topology ~= "hierarchical" then
          local _, ex = matrix.exchange(o, {compress = compress, min_size = 30, seed = 5})
          local came, applied, size = 0, 0, 0
          for _ = 1, 6 do
            local grads = gradients()
            for _, g in ipairs(average_of(grads)) do
              came, size = came + g:sum():item(), size + g:abs():sum():item()
            end
            run(ex, grads)
            for _, g in ipairs(grads) do applied = applied + g:sum():item() end
          end
          local up, sizes = held(ex.compressor)
          local down = held(ex.plan.second)
          local all = atomo.tensor {up / world.size, down, sizes}
          world:allreduce(all, "sum")
          local kept = all:get(1) + all:get(2)
          assert.is_true(math.abs(came - applied - kept) < 1e-4 * (size + all:get(3)),
            ("%s: %g came, %g applied, %g held back"):format(name(o, compress), came, applied, kept))
          assert.is_true(all:get(3) > 0, name(o, compress))
        end
      end
    end)
  end
end)
