-- The tensor that comes last, after others have spent the step's budget, is still drawn with a probability that keeps
-- its variance bounded. Here a step has 21 bytes a tensor, and a message is sent whole or not at all. Deterministic
-- seeds.
local atomo = require "atomo"

local STEPS, TENSORS = 100, 8
local grads = {}
for i = 1, TENSORS do
  atomo.manual_seed(i)
  grads[i] = atomo.randn(8, 3, 3, 16)
end

--- Returns the sorted relative variances of all tensors in all steps after the first, and the mean bytes of a step.
local function variances(compress)
  local exchange, list, bytes = atomo.exchange {compress = compress}, {}, 0
  for step = 1, STEPS do
    for i = TENSORS, 1, -1 do exchange:push(i, grads[i]:clone()) end
    exchange:finish()
    for _, layer in ipairs(step > 1 and exchange:layers() or {}) do
      list[#list + 1] = layer.variance / layer.square
      bytes = bytes + layer.bytes
    end
  end
  table.sort(list)
  return list, bytes / (STEPS - 1)
end

describe("a tensor that comes when the budget is spent", function()
  for _, compress in ipairs {"rotated:bytes=170", "auto:bytes=170", "rows:bytes=400"} do
    it("has at most 40 times the median's variance: " .. compress, function()
      local list, bytes = variances(compress)
      local median, most, budget = list[#list / 2], list[#list], tonumber(compress:match "%d+$")
      assert.is_true(most < 40 * median, ("median %.1f, largest %.1f"):format(median, most))
      assert.is_true(math.abs(bytes / budget - 1) < 0.03, ("%.1f bytes a step for %d"):format(bytes, budget))
    end)
  end
end)
