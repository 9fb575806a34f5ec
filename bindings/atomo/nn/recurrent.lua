--- nn.LSTM and nn.GRU: stacks of recurrent layers with PyTorch's parameters (weight_ih_l0, ...) and initial values.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.functional"
local init = require "atomo.nn.initial"
local check = require "atomo.nn.check"
local window = require "atomo.nn.window"
local ops = require "atomo.ops"
local Module = require("atomo.nn.module").Module

local known = {num_layers = true, bias = true, batch_first = true, dropout = true}

--- The class of a cell: gates, operator of one layer, and how many states it carries (h, or h and c).
local function stack(name, gates, op, states)
  local class = Module:extend(name)

  --- (input_size, hidden_size, {num_layers=1, bias=true, batch_first=false, dropout=0}); everything starts uniform on
  --- +-1/sqrt(hidden_size). Dropout acts between layers.
  function class:init(input_size, hidden_size, opts)
    opts = opts or {}
    window.check_options(name, opts, known)
    self.input_size = check.count(name, "input_size", input_size)
    self.hidden_size = check.count(name, "hidden_size", hidden_size)
    self.num_layers = check.count(name, "num_layers", opts.num_layers or 1)
    self.batch_first, self.bias = opts.batch_first or false, opts.bias ~= false
    self.dropout = F.check_dropout(name, opts.dropout or 0)
    local function fill(t) init.uniform_(t, hidden_size) end
    for l = 0, self.num_layers - 1 do
      local rows = gates * hidden_size
      self["weight_ih_l" .. l] = init.parameter({rows, l == 0 and input_size or hidden_size}, fill)
      self["weight_hh_l" .. l] = init.parameter({rows, hidden_size}, fill)
      if self.bias then
        self["bias_ih_l" .. l] = init.parameter({rows}, fill)
        self["bias_hh_l" .. l] = init.parameter({rows}, fill)
      end
    end
  end

  --- Layer l's part of a state [num_layers, N, hidden_size], zeros where none was given.
  local function state_of(self, given, what, l, n)
    if not given then return T.zeros(n, self.hidden_size) end
    T.expect(given, ("%s: %s"):format(name, what), "f32")
    local wanted = {self.num_layers, n, self.hidden_size}
    if T.shape_text(given) ~= T.shape_text(wanted) then
      f.raise(("%s: %s is %s, expected %s"):format(name, what, T.shape_text(given), T.shape_text(wanted)))
    end
    return given:select(1, l + 1)
  end

  --- x [T, N, input_size] (batch_first: [N, T, input_size]) and the states to begin with, [num_layers, N, hidden_size]
  --- (default: zeros) -> y [T, N, hidden_size] and the last states.
  function class:forward(x, h0, c0)
    T.expect(x, name .. ": input", "f32")
    if x:dim() ~= 3 or x:size(3) ~= self.input_size then
      f.raise(("%s: input is %s, expected %s with input_size %d"):format(name, T.shape_text(x),
        self.batch_first and "[N, T, channels]" or "[T, N, channels]", self.input_size))
    end
    if self.batch_first then x = x:transpose(1, 2) end
    local steps, n, h_last, c_last = x:size(1), x:size(2), {}, {}
    for l = 0, self.num_layers - 1 do
      local c
      x, c = op(x, self["weight_ih_l" .. l], self["weight_hh_l" .. l], self["bias_ih_l" .. l], self["bias_hh_l" .. l],
        state_of(self, h0, "h0", l, n), states == 2 and state_of(self, c0, "c0", l, n) or nil)
      h_last[l + 1], c_last[l + 1] = x:select(1, steps), c
      if l < self.num_layers - 1 then x = F.dropout(x, self.dropout, self.training) end
    end
    if self.batch_first then x = x:transpose(1, 2) end
    return x, ops.stack(h_last), states == 2 and ops.stack(c_last) or nil
  end

  function class:describe()
    local text = ("%d, %d"):format(self.input_size, self.hidden_size)
    if self.num_layers > 1 then text = text .. (", num_layers=%d"):format(self.num_layers) end
    if not self.bias then text = text .. ", bias=False" end
    if self.batch_first then text = text .. ", batch_first=True" end
    return self.dropout > 0 and text .. (", dropout=%g"):format(self.dropout) or text
  end
  return class
end

return {LSTM = stack("LSTM", 4, F.lstm, 2), GRU = stack("GRU", 3, F.gru, 1)}
