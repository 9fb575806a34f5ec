--- The limit of a training step: oneDNN's own best time for each of its convolutions (scripts/bench_nn.lua --limit).
--   local limit = require("atomo.conv_limit").measure(profile, steps);  print(limit:text(step_seconds))
-- Each layer's forward and both backward passes run direct and by oneDNN's Winograd, in the blocked layouts that oneDNN
-- chooses, no reorder counted; the faster one is the limit. What this runtime needs for the same is timed in between.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, C, check = f.ffi, f.C, f.check

local Limit = {}
Limit.__index = Limit

local algorithms = {"direct", "winograd"}
local passes = {"forward", "data", "weights"}

local function median(list)
  table.sort(list)
  return list[math.floor(#list / 2) + 1]
end

--- Adds oneDNN's seconds to list; false where it has no such primitive.
local function add_onednn(list, layer, pass, algorithm)
  local seconds = ffi.new "double[2]"
  local rc = C.atomo_conv2d_limit(layer.x.h, layer.w.h, layer.window, pass, algorithm, 2, seconds)
  if ffi.string(C.atomo_status_name(rc)) == "EUNSUPPORTED" then return false end
  check(rc)
  list[#list + 1], list[#list + 2] = seconds[0], seconds[1]
  return true
end

--- The same through this runtime's engines.
local own = {
  forward = function(l, out) return C.atomo_conv2d(l.x.h, l.w.h, nil, l.window, out) end,
  data = function(l, out) return C.atomo_conv2d_backward_data(l.x.h, l.w.h, l.gy.h, l.window, 0, out) end,
  weights = function(l, out) return C.atomo_conv2d_backward_weights(l.x.h, l.w.h, l.gy.h, l.window, out, nil) end,
}

local function add_own(list, layer, pass)
  local slot = T.out()
  check(own[pass](layer, slot))
  local result = T.wrap(slot[0])
  for _ = 1, 2 do
    local start = C.atomo_time()
    check(own[pass](layer, slot))
    list[#list + 1] = C.atomo_time() - start
  end
  result:free()
end

--- {direct, winograd, own}: median seconds of one pass of a layer; nil where oneDNN has nothing.
local function measure_pass(layer, pass, rounds)
  local times = {direct = {}, winograd = {}, own = {}}
  for _ = 1, rounds do
    for _, algorithm in ipairs(algorithms) do
      if times[algorithm] and not add_onednn(times[algorithm], layer, pass, algorithm) then times[algorithm] = nil end
    end
    add_own(times.own, layer, pass)
  end
  for name, list in pairs(times) do times[name] = median(list) end
  if times.direct or times.winograd then
    times.winner = (times.winograd or math.huge) < (times.direct or math.huge) and "winograd" or "direct"
    times.best = times[times.winner]
  end
  return times
end

--- One layer, conv = {x = sizes, w = sizes, y = sizes, window = }.
local function measure_layer(conv, needs_data, rounds)
  return T.scope(function()
    local layer = {x = T.rand(unpack(conv.x)), w = T.rand(unpack(conv.w)), gy = T.rand(unpack(conv.y)),
      window = conv.window}
    local result = {}
    for _, pass in ipairs(passes) do
      if pass ~= "data" or needs_data then result[pass] = measure_pass(layer, pass, rounds) end
    end
    return result
  end)
end

--- Measures the convolutions that a stopped profile of so many steps has seen.
---@param profile table     of atomo.profile
---@param steps integer     training steps in it
---@param rounds integer?   alternations of oneDNN and own, 2 runs each
local function measure(profile, steps, rounds)
  local self = setmetatable({layers = {}, seconds = 0, own = 0, complete = true}, Limit)
  for _, row in ipairs(profile.order) do
    if row.conv then
      local times = measure_layer(row.conv, row.conv.needs_data, rounds or 3)
      local calls = row.forward.calls / steps
      self.layers[#self.layers + 1] = {name = row.name, calls = calls, times = times}
      for _, t in pairs(times) do
        self.seconds = self.seconds + calls * (t.best or 0)
        self.own = self.own + calls * t.own
        self.complete = self.complete and t.best ~= nil
      end
    end
  end
  return self
end

local function number(seconds) return seconds and ("%8.2f"):format(1e3 * seconds) or ("%8s"):format "none" end

--- A line for every layer and pass, then the sums.
---@param step_seconds number  of the whole training step
function Limit:text(step_seconds)
  local lines = {("%-52s %5s %-8s %8s %8s %8s %6s"):format("convolution, ms a call", "calls", "pass", "direct",
    "winograd", "own", "share")}
  for _, layer in ipairs(self.layers) do
    for _, pass in ipairs(passes) do
      local t = layer.times[pass]
      if t then
        lines[#lines + 1] = ("%-52s %5.0f %-8s %s %s %s %5.0f%%"):format(layer.name, layer.calls, pass,
          number(t.direct), number(t.winograd), number(t.own), t.best and 100 * t.best / t.own or 0)
      end
    end
  end
  if not self.complete then lines[#lines + 1] = "oneDNN lacks some of these: the limit leaves them out" end
  lines[#lines + 1] = ("limit: oneDNN's best for all convolutions %.1f ms a step, own convolutions %.1f ms, whole " ..
    "step %.1f ms; share of the limit %.2f"):format(1e3 * self.seconds, 1e3 * self.own, 1e3 * step_seconds,
    self.seconds / step_seconds)
  return table.concat(lines, "\n")
end

return {measure = measure}
