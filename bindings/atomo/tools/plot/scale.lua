--- Scales of charts: ranges that fit the data, ticks at round numbers, their texts.
local M = {}

--- 12000 -> "12 k"; 0.0001 -> "1e-4". step: distance of the ticks, which gives the decimals; nil: as many as needed.
---@param v number
---@param step number?
---@return string
function M.text(v, step)
  local a = math.abs(v)
  if a >= 1e9 then return ("%g G"):format(v / 1e9) end
  if a >= 1e6 then return ("%g M"):format(v / 1e6) end
  if a >= 1e4 or (a >= 1e3 and not step) then return ("%g k"):format(v / 1e3) end
  if a == 0 or (step and a < step / 2) then return "0" end -- v may be -0
  if a < 1e-3 then return (("%.0e"):format(v):gsub("e%-0", "e-")) end
  if not step or step >= 1 then return ("%g"):format(v) end
  return ("%." .. math.ceil(-math.log10(step) - 1e-9) .. "f"):format(v)
end

--- Returns the upper end of the axis for `values`: the largest value, or if a few are far larger than the others (a
--- first loss, a spike), a little more than their 98th percentile.
local function without_spikes(values, low, high)
  if #values < 20 then return high end
  table.sort(values)
  local most = values[math.ceil(0.98 * #values)]
  return high > most + 2 * (most - low) and most + 0.1 * (most - low) or high
end

--- Returns the least and largest coordinate k over all series, slightly extended; logarithms on a log axis. An axis of
--- values >= 0 does not go below 0. axis: {log=, clip= (leave spikes out), most= (a bound of the values)}.
---@param axis table
---@param series {points: number[][]}[]
---@param k integer  1: x, 2: y
function M.range(axis, series, k)
  local low, high, values = math.huge, -math.huge, {}
  for _, s in ipairs(series) do
    for _, p in ipairs(s.points) do
      low, high = math.min(low, p[k]), math.max(high, p[k])
      values[#values + 1] = p[k]
    end
  end
  if low > high then low, high = 1, 10 end
  if axis.clip then high = without_spikes(values, low, high) end
  if axis.log then
    local room = math.max(0.05 * math.log10(high / low), 0.05)
    return math.log10(low) - room, math.log10(high) + room
  end
  local room = 0.05 * (high - low)
  if room == 0 then room = high ~= 0 and 0.05 * math.abs(high) or 1 end
  local from, to = low - room, high + room
  if low >= 0 then from = math.max(from, 0) end
  if axis.most and high <= axis.most then to = math.min(to, axis.most) end
  return from, to
end

--- Returns the ticks of an axis from low to high (logarithms on a log axis): {value, is it labelled?}, and on a linear
--- axis their distance.
---@param axis {log: boolean?}
---@return {[1]: number, [2]: boolean}[]
---@return number? step
function M.ticks(axis, low, high)
  local list = {}
  if not axis.log then
    local step = 10 ^ math.floor(math.log10((high - low) / 4))
    for _, m in ipairs {5, 2} do if (high - low) / (step * m) >= 4 then step = step * m break end end
    for k = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do list[#list + 1] = {k * step, true} end
    return list, step
  end
  local wide = high - low > 3
  for e = math.floor(low), math.ceil(high) do
    for m = 1, 9 do
      local v = m * 10 ^ e
      local at = math.log10(v)
      if at >= low and at <= high then list[#list + 1] = {v, m == 1 or (not wide and (m == 2 or m == 5))} end
    end
  end
  return list
end

return M
