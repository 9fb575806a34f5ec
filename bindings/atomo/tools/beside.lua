--- Times another program's training step in turn with ours (scripts/bench_nn.lua --beside).
--   local beside = require "atomo.tools.beside"
--   local seconds = beside.run("python3 other.py bf16")              -- the median that it prints
--   print(beside.measure {rounds = 3, precisions = {"bf16"}, command = "python3 other.py {precision}",
--     step = function(precision) return seconds_of_a_step end}:text())
-- The other program times steps itself and prints "median N ms". In the command "{precision}" stands for fp32 or bf16.
-- A machine's speed drifts, so measurements are in rounds: steps and the program, for each precision. A ratio is of
-- times of the same round; the result is the median.
local raise = require("atomo.ffi").raise
local median = require "atomo.core.median"
local system = require "atomo.tools.system"

local Beside = {}
Beside.__index = Beside

--- Returns the seconds that a command prints as "median N ms", the last of them; raises with its output if it fails or
--- prints none.
---@param command string
---@return number seconds
local function run(command)
  local out, code = system.run("(" .. command .. "\n)")
  if code ~= 0 then raise(("beside: `%s` failed with exit code %d:\n%s"):format(command, code, out)) end
  local ms
  for number in out:gmatch "median%s+([%d.]+)%s*ms" do ms = tonumber(number) end
  if not (ms and ms > 0) then
    raise(("beside: `%s` did not print \"median N ms\", it printed:\n%s"):format(command, out))
  end
  return 1e-3 * ms
end

--- Measures rounds; returns an object with own[precision], other[precision] and ratios[precision]: lists of seconds,
--- and of the other program's time over ours.
---@param o {rounds: integer, precisions: string[], command: string, step: fun(precision: string): number}
local function measure(o)
  local self = setmetatable({precisions = o.precisions, own = {}, other = {}, ratios = {}, rounds = o.rounds}, Beside)
  for _, precision in ipairs(o.precisions) do self.own[precision], self.other[precision] = {}, {} end
  for r = 1, o.rounds do
    for _, precision in ipairs(o.precisions) do
      self.own[precision][r] = o.step(precision)
      self.other[precision][r] = run((o.command:gsub("{precision}", precision)))
    end
  end
  for _, precision in ipairs(o.precisions) do
    local ratios = {}
    for r = 1, o.rounds do ratios[r] = self.other[precision][r] / self.own[precision][r] end
    self.ratios[precision] = ratios
  end
  return self
end

--- Returns a line for each precision: medians, and how many times as fast our step is.
function Beside:text()
  local line = "beside %s: step %.1f ms, the other program %.1f ms: %.2f times as fast (%d rounds, %.2f to %.2f)"
  local lines = {}
  for i, precision in ipairs(self.precisions) do
    local ratios = self.ratios[precision]
    lines[i] = line:format(precision, 1e3 * median(self.own[precision]), 1e3 * median(self.other[precision]),
      median(ratios), self.rounds, math.min(unpack(ratios)), math.max(unpack(ratios)))
  end
  return table.concat(lines, "\n")
end

return {run = run, measure = measure}
