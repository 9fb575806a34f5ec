--- Counts rows whose label is among the k largest logits, ordered as argmax orders them: NaN first, then the largest,
-- among equal ones the first.
local f = require "atomo.ffi"
local T = require "atomo.tensor"

--- Returns how many elements of a row of n precede element `at`.
local function place(row, n, at)
  local v, before = row[at], 0
  for j = 0, n - 1 do
    local w = row[j]
    local first = w > v or (w ~= w and v == v)
    if first or (j < at and (w == v or (w ~= w and v ~= v))) then before = before + 1 end
  end
  return before
end

--- Returns the number of rows of logits f32 [..., classes] whose label, i32 [...], is among the k largest logits. Rows
--- with label opts.ignore_index (default -100) do not count.
---@param logits atomo.Tensor
---@param labels atomo.Tensor
---@param k integer
---@param opts {ignore_index: integer}?
---@return integer
return function(logits, labels, k, opts)
  local classes, ignore = logits:size(-1), opts and opts.ignore_index or -100
  if T.expect(labels, "top_correct: labels", "i32"):numel() * classes ~= logits:numel() then
    f.raise(("top_correct: logits %s, labels %s, expected a label for each row"):format(T.shape_text(logits),
      T.shape_text(labels)))
  end
  local rows, ids = logits:detach():contiguous(), labels:detach():contiguous()
  local x, y, count = rows:data(), ids:data(), 0
  for i = 0, ids:numel() - 1 do
    local label = y[i]
    if label ~= ignore and place(x + i * classes, classes, label) < k then count = count + 1 end
  end
  return count
end
