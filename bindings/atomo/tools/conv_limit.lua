--- Best time of a training step's convolutions: oneDNN's own for each of them (scripts/bench_nn.lua --limit).
--   local part = require("atomo.tools.conv_limit").new(profile, steps)    -- a part of tools/step_limit.lua's limit
-- Each layer's forward and both backward passes run by oneDNN's direct and Winograd algorithms, in the blocked layouts
-- that oneDNN chooses, without counting reorders; the faster one is the best. A pass has operands of the precision in
-- which the runtime computes it: with --precision bf16 some passes have bf16 operands (their rounding is not counted),
-- others f32. This runtime's convolutions are timed, too, and these times include rounding.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local median = require "atomo.core.median"
local precisions = require "atomo.autograd.precision"
local ffi, C, check = f.ffi, f.C, f.check

local Part = {}
Part.__index = Part

local algorithms = {"direct", "winograd"}
local passes = {"forward", "data", "weights"}
local PASS_NUMBER = {forward = 0, data = 1, weights = 2}
local RUNS = 2 -- runs of each algorithm in a round, after one to warm up; the fastest is used

local library -- scripts/bench/conv_limit.c; false: this build has none

--- Returns the benchmark's library; nil if the build has no oneDNN.
local function load_library()
  if library ~= nil then return library or nil end
  local here = debug.getinfo(1, "S").source:match "^@(.*)/atomo/tools/conv_limit%.lua$" or "."
  local installed, where = pcall(require, "atomo_where") -- written by cmake --install
  local folder = installed and where:gsub("[^/]*$", "atomo") or ".."
  local ok, loaded = pcall(ffi.load, ("%s/%s/libatomo_bench.so"):format(here, folder))
  library = ok and loaded
  if ok then
    ffi.cdef [[int atomo_bench_convolution(const double *x, const double *w, const double *y, const atomo_window *g,
      int pass, int winograd, int precision, int runs, double *seconds);]]
  end
  return library or nil
end

--- Returns the precision in which the runtime computes a pass of a layer {x=, w=, window=, precision=}, a number.
local function pass_precision(layer, pass)
  local number = PASS_NUMBER[pass]
  return check(C.atomo_conv2d_pass_precision(layer.x.h, layer.w.h, layer.window, layer.precision, number))
end

--- Returns oneDNN's seconds for one pass of a layer {x=, w=, gy=, window=} with operands of a precision; nil if it has
--- no such primitive.
local function time_onednn(layer, pass, algorithm, precision)
  local seconds = ffi.new("double[?]", RUNS)
  local rc = load_library().atomo_bench_convolution(layer.x.h.shape, layer.w.h.shape, layer.gy.h.shape, layer.window,
    PASS_NUMBER[pass], algorithm == "winograd" and 1 or 0, precision, RUNS, seconds)
  local status = ffi.string(C.atomo_status_name(rc))
  if status == "EUNSUPPORTED" then return nil end
  if rc < 0 then f.raise(("conv_limit: oneDNN, %s %s: %s"):format(algorithm, pass, status)) end
  local best = math.huge
  for i = 0, RUNS - 1 do best = math.min(best, seconds[i]) end
  return best
end

--- The same passes by this runtime.
local own = {
  forward = function(l, out) return C.atomo_conv2d(l.x.h, l.w.h, nil, l.window, l.precision, out) end,
  data = function(l, out) return C.atomo_conv2d_backward_data(l.x.h, l.w.h, l.gy.h, l.window, l.precision, 0, out) end,
  weights = function(l, out)
    return C.atomo_conv2d_backward_weights(l.x.h, l.w.h, l.gy.h, l.window, l.precision, out, nil)
  end,
}

local function time_own(layer, pass)
  local slot = T.out()
  check(own[pass](layer, slot))
  local result, best = T.wrap(slot[0]), math.huge
  for _ = 1, RUNS do
    local start = C.atomo_time()
    check(own[pass](layer, slot))
    best = math.min(best, C.atomo_time() - start)
  end
  result:free()
  return best
end

local function run_round(layer)
  T.scope(function()
    local conv = layer.conv
    local operands = {x = T.rand(unpack(conv.x)), w = T.rand(unpack(conv.w)), gy = T.rand(unpack(conv.y)),
      window = conv.window, precision = layer.precision}
    for pass, lists in pairs(layer.passes) do
      lists.precision = pass_precision(operands, pass)
      for _, algorithm in ipairs(algorithms) do
        local list = lists[algorithm]
        list[#list + 1] = time_onednn(operands, pass, algorithm, lists.precision)
      end
      lists.own[#lists.own + 1] = time_own(operands, pass)
    end
  end)
end

--- Sets layer.times[pass] = {direct, winograd, own, winner, best, precision}: medians of the rounds (nil for an
--- algorithm that oneDNN does not have for this pass), and oneDNN's faster algorithm.
local function conclude(layer)
  layer.times = {}
  for pass, lists in pairs(layer.passes) do
    local t = {direct = median(lists.direct), winograd = median(lists.winograd), own = median(lists.own),
      precision = precisions.name(lists.precision)}
    if t.direct or t.winograd then
      t.winner = (t.winograd or math.huge) < (t.direct or math.huge) and "winograd" or "direct"
      t.best = t[t.winner]
    end
    layer.times[pass] = t
  end
end

--- Makes the part of the convolutions recorded by a stopped profile; nil if it has none. Raises if the build has no
--- oneDNN.
---@param profile table     result of atomo.profile
---@param steps integer     number of training steps in it
local function new(profile, steps)
  local self = setmetatable({name = "convolutions", layers = {}, seconds = 0, own = 0, complete = true}, Part)
  for _, row in ipairs(profile.order) do
    if row.conv then
      local layer = {name = row.name, conv = row.conv, calls = row.forward.calls / steps, passes = {},
        precision = row.bf16 and C.ATOMO_PRECISION_BF16 or C.ATOMO_PRECISION_FP32}
      for _, pass in ipairs(passes) do
        if pass ~= "data" or row.conv.needs_data then layer.passes[pass] = {direct = {}, winograd = {}, own = {}} end
      end
      self.layers[#self.layers + 1] = layer
    end
  end
  if #self.layers == 0 then return nil end
  if not load_library() then f.raise "conv_limit: this build has no oneDNN (apt install libdnnl-dev, then build)" end
  return self
end

--- Times every convolution once more.
function Part:run_round()
  for _, layer in ipairs(self.layers) do run_round(layer) end
end

--- Sets what the rounds say: self.seconds, the best time of a step's convolutions, and self.own, the runtime's.
function Part:conclude()
  for _, layer in ipairs(self.layers) do
    conclude(layer)
    for _, t in pairs(layer.times) do
      self.seconds = self.seconds + layer.calls * (t.best or 0)
      self.own = self.own + layer.calls * t.own
      self.complete = self.complete and t.best ~= nil
    end
  end
end

--- Returns the seconds of oneDNN's best algorithms in round r, for all convolutions of a step.
function Part:seconds_of_round(r)
  local sum = 0
  for _, layer in ipairs(self.layers) do
    for pass, lists in pairs(layer.passes) do
      local winner = layer.times[pass].winner
      if winner then sum = sum + layer.calls * lists[winner][r] end
    end
  end
  return sum
end

local function number(seconds) return seconds and ("%8.2f"):format(1e3 * seconds) or ("%8s"):format "none" end

--- Returns a table with a line for every layer and pass; times are medians over the rounds.
function Part:text()
  local lines = {("%-57s %5s %-8s %-4s %8s %8s %8s %6s"):format("convolution, ms a call", "calls", "pass", "in",
    "direct", "winograd", "own", "share")}
  for _, layer in ipairs(self.layers) do
    for _, pass in ipairs(passes) do
      local t = layer.times[pass]
      if t then
        lines[#lines + 1] = ("%-57s %5.0f %-8s %-4s %s %s %s %5.0f%%"):format(layer.name, layer.calls, pass,
          t.precision, number(t.direct), number(t.winograd), number(t.own), t.best and 100 * t.best / t.own or 0)
      end
    end
  end
  if not self.complete then lines[#lines + 1] = "oneDNN lacks some of these: the limit leaves them out" end
  return table.concat(lines, "\n")
end

--- Returns the part's share of the limit in one line.
function Part:summary()
  return ("oneDNN's best for all convolutions %.1f ms a step, own convolutions %.1f ms"):format(1e3 * self.seconds,
    1e3 * self.own)
end

return {new = new, time_onednn = time_onednn, available = function() return load_library() ~= nil end}
