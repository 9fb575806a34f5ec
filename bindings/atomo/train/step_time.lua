--- Divides a step's time into stages, from a log's `ms`. Encoding and decoding count only as far as the main thread did
-- them or waited for them. Work of other threads that overlaps with backward takes no time of the step.
local M = {}

--- Stages in the order of a step.
M.stages = {"data", "forward", "backward", "encode", "exchange", "decode", "update"}

--- Returns the milliseconds of each stage, {name, ms}, in the order of a step. Their sum is at most ms.step, unless the
--- main thread's own stages exceed it.
---@param ms table<string, number>  milliseconds by stage; step: all of the step
---@return {[1]: string, [2]: number}[]
function M.parts(ms)
  local busy = 0
  for _, name in ipairs {"data", "forward", "backward", "exchange", "update"} do busy = busy + (ms[name] or 0) end
  local coding = (ms.encode or 0) + (ms.decode or 0)
  local seen = coding > 0 and math.min(1, math.max(0, ms.step - busy) / coding) or 0
  local list = {}
  for i, name in ipairs(M.stages) do
    local share = (name == "encode" or name == "decode") and seen or 1
    list[i] = {name, share * (ms[name] or 0)}
  end
  return list
end

return M
