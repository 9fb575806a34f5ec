--- The error of the mean of several ranks' messages, with draws that cancel (option together) and with independent
-- ones; for scripts/compare_compressors.lua --ranks.
local T = require "atomo.tensor"
local compress = require "atomo.compress"

local M = {}

--- Returns E||mean of ghat - mean of g||^2 / ||mean of g||^2. ranks: what the codec is told, 1: draws are independent.
local function error_of_mean(text, lists, names, draws, ranks)
  local c, shapes, mean, accs, square = compress.compressor(text, {seed = 1}), {}, {}, {}, 0
  for i, g in ipairs(lists[1]) do
    shapes[i], accs[i], mean[i] = g:shape(), T.zeros(g:shape()), T.zeros(g:shape())
    for _, list in ipairs(lists) do mean[i]:axpy_(1 / #lists, list[i]) end
    square = square + mean[i]:norm_value(2) ^ 2
  end
  c:prepare(shapes, names)
  c:set_ranks(ranks)
  local out, error = T.zeros(c:wire_max(), "u8"), 0
  for step = 1, draws do
    for _, acc in ipairs(accs) do acc:zero_() end
    for rank, grads in ipairs(lists) do
      c:decode_step(out, 0, c:encode_step(grads, {step = step, rank = rank - 1, out = out}), 1 / #lists, accs)
    end
    for i, acc in ipairs(accs) do error = error + T.scope(function() return (acc - mean[i]):norm_value(2) ^ 2 end) end
  end
  return error / draws / square
end

--- Returns the mean cosine of two ranks' gradients.
---@param lists atomo.Tensor[][]  the gradients of each rank
---@return number
function M.cosine(lists)
  local function inner(a, b)
    local sum = 0
    for i, t in ipairs(a) do sum = sum + t:dot_value(b[i]) end
    return sum
  end
  local sum, pairs_of = 0, 0
  for r = 1, #lists do
    for s = 1, r - 1 do
      sum = sum + inner(lists[r], lists[s]) / math.sqrt(inner(lists[r], lists[r]) * inner(lists[s], lists[s]))
      pairs_of = pairs_of + 1
    end
  end
  return sum / pairs_of
end

--- Measures a compressor on the gradients of several ranks.
---@param text string
---@param lists atomo.Tensor[][]  the gradients of each rank
---@param names string[]
---@param draws integer
---@return {together: number, apart: number}  relative error of the mean; apart: of independent draws
function M.measure(text, lists, names, draws)
  return {together = error_of_mean(text, lists, names, draws, #lists),
    apart = error_of_mean(text, lists, names, draws, 1)}
end

return M
