--- Returns the median of a list of numbers: the middle value, or the mean of the two middle values if their count is
--- even; nil for an empty list. The list stays as it is.
---@param list number[]
---@return number?
return function(list)
  local sorted, n = {}, #list
  for i = 1, n do sorted[i] = list[i] end
  if n == 0 then return nil end
  table.sort(sorted)
  return n % 2 == 1 and sorted[(n + 1) / 2] or 0.5 * (sorted[n / 2] + sorted[n / 2 + 1])
end
