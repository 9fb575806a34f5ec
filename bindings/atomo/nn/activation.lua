--- nn.ReLU and nn.Dropout: layers without parameters that act on each element.
local f = require "atomo.ffi"
local F = require "atomo.functional"
local Module = require("atomo.nn.module").Module

local ReLU = Module:extend "ReLU"
function ReLU:forward(x) return F.relu(x) end

--- nn.Dropout(p = 0.5): in training zeroes each element with probability p and scales the rest by 1/(1-p).
local Dropout = Module:extend "Dropout"
function Dropout:init(p)
  self.p = p or 0.5
  if type(self.p) ~= "number" or not (self.p >= 0 and self.p < 1) then
    f.raise(("Dropout: p is %s, expected 0 <= p < 1"):format(tostring(p)))
  end
end
function Dropout:forward(x) return F.dropout(x, self.p, self.training) end
function Dropout:describe() return ("p=%g"):format(self.p) end

return {ReLU = ReLU, Dropout = Dropout}
