--- nn.LSTM and nn.GRU: stacks of recurrent layers with PyTorch's parameters (weight_ih_l0, ...) and initial values.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.nn.functional"
local O = require "atomo.tensor.check_options"
local parameter = require "atomo.nn.parameter"
local check = require "atomo.nn.functional.check"
local window = require "atomo.nn.functional.window"
local ops = require "atomo.autograd.ops"
local Module = require("atomo.nn.module").Module

local known = {num_layers = true, bias = O.flag, batch_first = O.flag, dropout = O.number(0, 1), bidirectional = O.flag}

--- 1-based indices T, T-1, ..., 1.
local function backwards(steps)
  local index = T.empty({steps}, "i32")
  local p = index:data()
  for i = 0, steps - 1 do p[i] = steps - i end
  return index
end

--- Makes the class of a stack. gates: 4 or 3; op: operator of one layer; states: 2 (h and c) or 1 (h).
local function stack(name, gates, op, states)
  local class = Module:extend(name)

  --- (input_size, hidden_size, {num_layers=1, bias=true, batch_first=false, dropout=0, bidirectional=false}). Initial
  --- weights and biases are uniform in +-1/sqrt(hidden_size). Dropout is applied between layers.
  function class:init(input_size, hidden_size, opts)
    opts = opts == nil and {} or opts
    window.check_options(name, opts, known)
    input_size = check.count(name, "input_size", input_size)
    self.input_size = input_size
    hidden_size = check.count(name, "hidden_size", hidden_size)
    self.hidden_size = hidden_size
    self.num_layers = check.count(name, "num_layers", opts.num_layers or 1)
    self.batch_first, self.bias = opts.batch_first or false, opts.bias ~= false
    self.dropout = F.check_dropout(name, opts.dropout or 0)
    if self.dropout > 0 and self.num_layers == 1 then
      f.raise(("%s: dropout %g acts between layers, and there is one layer"):format(name, self.dropout))
    end
    self.bidirectional = opts.bidirectional or false
    self.suffixes = self.bidirectional and {"", "_reverse"} or {""}
    local fill = parameter.uniform(hidden_size)
    for l = 0, self.num_layers - 1 do
      local rows, width = gates * hidden_size, l == 0 and input_size or hidden_size * #self.suffixes
      for _, suffix in ipairs(self.suffixes) do
        local at = l .. suffix
        self["weight_ih_l" .. at] = parameter.new({rows, width}, fill)
        self["weight_hh_l" .. at] = parameter.new({rows, hidden_size}, fill)
        if self.bias then
          self["bias_ih_l" .. at] = parameter.new({rows}, fill)
          self["bias_hh_l" .. at] = parameter.new({rows}, fill)
        end
      end
    end
  end

  --- Returns part i of a given state [num_layers * directions, N, hidden_size]; zeros for nil.
  local function state_of(self, given, what, i, n)
    if not given then return T.zeros(n, self.hidden_size) end
    T.expect(given, ("%s: %s"):format(name, what), "f32")
    local wanted = {self.num_layers * #self.suffixes, n, self.hidden_size}
    if T.shape_text(given) ~= T.shape_text(wanted) then
      f.raise(("%s: %s is %s, expected %s"):format(name, what, T.shape_text(given), T.shape_text(wanted)))
    end
    return given:select(1, i)
  end

  --- Runs layer l in one direction; returns y [T, N, hidden_size] and appends the last states to `last`.
  local function direction(self, x, l, d, h0, c0, last)
    local i, at = l * #self.suffixes + d, l .. self.suffixes[d]
    local y, c = op(x, self["weight_ih_l" .. at], self["weight_hh_l" .. at], self["bias_ih_l" .. at],
      self["bias_hh_l" .. at], state_of(self, h0, "h0", i, x:size(2)),
      states == 2 and state_of(self, c0, "c0", i, x:size(2)) or nil)
    last.h[i], last.c[i] = y:select(1, x:size(1)), c
    return y
  end

  --- x [T, N, input_size] (batch_first: [N, T, input_size]), initial states [num_layers, N, hidden_size] (default
  --- zeros)
  --- -> y [T, N, hidden_size], last states. Bidirectional: states [2 num_layers, ...], forward before backward in each
  --- layer, and y [T, N, 2 hidden_size].
  function class:forward(x, h0, c0)
    T.expect(x, name .. ": input", "f32")
    if c0 ~= nil and states == 1 then f.raise(name .. ": got a third argument, expected the input and h0") end
    if x:dim() ~= 3 or x:size(3) ~= self.input_size then
      f.raise(("%s: input is %s, expected %s with input_size %d"):format(name, T.shape_text(x),
        self.batch_first and "[N, T, channels]" or "[T, N, channels]", self.input_size))
    end
    if self.batch_first then x = x:transpose(1, 2) end
    local last, reversed = {h = {}, c = {}}, self.bidirectional and backwards(x:size(1))
    for l = 0, self.num_layers - 1 do
      local y = direction(self, x, l, 1, h0, c0, last)
      if reversed then
        local back = direction(self, x:index_select(1, reversed), l, 2, h0, c0, last)
        y = ops.cat({y, back:index_select(1, reversed)}, 3)
      end
      x = l < self.num_layers - 1 and F.dropout(y, self.dropout, self.training) or y
    end
    if self.batch_first then x = x:transpose(1, 2) end
    return x, ops.stack(last.h), states == 2 and ops.stack(last.c) or nil
  end

  function class:describe()
    local text = ("%d, %d"):format(self.input_size, self.hidden_size)
    if self.num_layers > 1 then text = text .. (", num_layers=%d"):format(self.num_layers) end
    if not self.bias then text = text .. ", bias=False" end
    if self.batch_first then text = text .. ", batch_first=True" end
    if self.bidirectional then text = text .. ", bidirectional=True" end
    return self.dropout > 0 and text .. (", dropout=%g"):format(self.dropout) or text
  end
  return class
end

return {LSTM = stack("LSTM", 4, F.lstm, 2), GRU = stack("GRU", 3, F.gru, 1)}
