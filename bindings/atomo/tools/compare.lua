--- Compares compressors on the same gradients by bytes, error and time (stages 4 to 8), for
-- scripts/compare_compressors.lua and scripts/bench_codec.lua.
local C = require("atomo.ffi").C
local T = require "atomo.tensor"
local compress = require "atomo.compress"
local median = require "atomo.core.median"

local M = {}

--- Combines each compressor that has option ratio and no budget with every ratio; others are unchanged.
---@param specs string[]
---@param ratios number[]
---@return {text: string, name: string, ratio: number?}[]  name: the text without the ratio
function M.expand(specs, ratios)
  local list = {}
  for _, text in ipairs(specs) do
    local entry = compress.spec.read(text)
    local given = text:match "[:,]ratio=" or text:match "[:,]bytes=" or text:match "[:,]atoms=" or text:match "[:,]k="
    if given or not entry.options.ratio then
      list[#list + 1] = {text = text, name = text}
    else
      for _, ratio in ipairs(ratios) do
        local own, overrides = text:match "^([^;]*)(.*)$"
        local joint = own:find(":", 1, true) and "," or ":"
        list[#list + 1] = {text = ("%s%sratio=%g%s"):format(own, joint, ratio, overrides), name = text, ratio = ratio}
      end
    end
  end
  return list
end

--- Returns ||a - b||^2 of two lists of tensors.
local function distance(a, b)
  local sum = 0
  for i, t in ipairs(a) do
    sum = sum + T.scope(function() return (t - b[i]):norm_value(2) ^ 2 end)
  end
  return sum
end

---@class atomo.Comparison
---@field compressor string
---@field unbiased boolean
---@field bytes number          bytes of a step's messages, mean
---@field ratio number          dense bytes / bytes
---@field predicted number      E||ghat - g||^2 / ||g||^2 by the compressor's closed form, mean
---@field over_bound number     predicted over M.bound(ratio)
---@field over_classes number?  predicted over the bound of `rotated`'s classes (c:stats().bound)
---@field measured number       the same, measured by decoding; measured_error: its standard error
---@field encode_ms number      milliseconds to encode a step, median
---@field decode_ms number      milliseconds to decode a step, median
---@field encode_gb_s number    gigabytes of gradients encoded per second
---@field decode_gb_s number    gigabytes of gradients decoded per second

--- Returns the least relative variance that an unbiased code of normal numbers can have at 1 / ratio of the dense
--- bytes: 1 / (4^R - 1) at R bits per entry, by the rate-distortion function of a normal number. Gradients with most of
--- their energy in a few entries or directions can have less.
---@param ratio number
function M.bound(ratio) return 1 / (4 ^ (32 / ratio) - 1) end

--- Encodes a step into out, all tensors under one budget or, if streamed, one at a time as in training; returns the
--- length.
local function encode_all(c, grads, step, out, streamed)
  if not streamed then return c:encode_step(grads, {step = step, out = out}) end
  local n = 0
  c:begin_step(step)
  for i, g in ipairs(grads) do n = n + c:push(i, g, out, n) end
  c:end_step()
  return n
end

--- Measures a compressor on a step of gradients, `draws` times after one time to warm up.
---@param text string|table
---@param grads atomo.Tensor[]
---@param names string[]
---@param draws integer
---@param streamed boolean?  one tensor at a time, at the price of the previous step
---@return atomo.Comparison
function M.measure(text, grads, names, draws, streamed)
  local c = compress.compressor(text, {seed = 1})
  local shapes, accs, dense, square = {}, {}, 0, 0
  for i, g in ipairs(grads) do
    shapes[i], accs[i] = g:shape(), T.zeros(g:shape())
    dense, square = dense + 4 * g:numel(), square + g:norm_value(2) ^ 2
  end
  c:prepare(shapes, names)
  local out = T.zeros(c:wire_max(), "u8")
  local encode, decode, bytes, predicted, error, errors, bound = {}, {}, 0, 0, 0, 0, 0
  for k = 0, draws do
    for _, acc in ipairs(accs) do acc:zero_() end
    local t0 = C.atomo_time()
    local n = encode_all(c, grads, k, out, streamed)
    local t1 = C.atomo_time()
    c:decode_step(out, 0, n, 1, accs)
    local t2 = C.atomo_time()
    if k > 0 then
      encode[k], decode[k] = t1 - t0, t2 - t1
      local e = distance(accs, grads) / square
      local stats = c:stats()
      bytes, predicted = bytes + n / draws, predicted + stats.variance / square / draws
      bound = bound + (stats.bound or 0) / square / draws
      error, errors = error + e / draws, errors + e * e / draws
    end
  end
  local t_encode, t_decode = median(encode), median(decode)
  return {compressor = tostring(c), unbiased = c.unbiased, bytes = bytes, dense_bytes = dense, ratio = dense / bytes,
    predicted = predicted, over_bound = predicted / M.bound(dense / bytes),
    over_classes = bound > 0 and predicted / bound or nil, measured = error,
    measured_error = math.sqrt(math.max(0, errors - error ^ 2) / draws),
    encode_ms = 1e3 * t_encode, decode_ms = 1e3 * t_decode, encode_gb_s = dense / t_encode / 1e9,
    decode_gb_s = dense / t_decode / 1e9, draws = draws}
end

--- Returns a chart of measured error against bytes, with one line per compressor.
---@param results atomo.Comparison[]  each with field name, of its line
---@param title string
function M.chart(results, title)
  local series, by_name = {}, {}
  for _, r in ipairs(results) do
    local s = by_name[r.name]
    if not s then
      s = {name = r.name .. (r.unbiased and "" or " (biased)"), points = {}}
      series[#series + 1], by_name[r.name] = s, s
    end
    s.points[#s.points + 1] = {r.bytes, r.measured}
  end
  local bound = {name = "bound for normal entries", points = {}}
  for _, r in ipairs(results) do
    if r.dense_bytes and r.ratio > 1 then bound.points[#bound.points + 1] = {r.bytes, M.bound(r.ratio)} end
  end
  if #bound.points > 1 then series[#series + 1] = bound end
  for _, s in ipairs(series) do table.sort(s.points, function(a, b) return a[1] < b[1] end) end
  return {title = title, x = {label = "bytes a step", log = true},
    y = {label = "relative squared error E||ghat - g||² / ||g||²", log = true}, series = series}
end

return M
