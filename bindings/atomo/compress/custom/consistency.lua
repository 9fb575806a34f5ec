--- Checks that the functions of a scripted compressor give the same results on all ranks (stage 7). If they depended on
-- the rank or a random draw, ranks would decode different sums from the same messages. Before the first message, each
-- rank synthesises from the same fixed numbers and reconstructs from rank 0's atoms; the results are compared.
local T = require "atomo.tensor"
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"

local M = {}

--- Writes three numbers that represent t: its projections on two fixed vectors, and its norm.
local function look(t, into)
  local p, n, along, across = t:contiguous():data(), t:numel(), 0, 0
  for i = 0, n - 1 do
    along = along + p[i] * math.sin(1 + 1.7 * i)
    across = across + p[i] * math.cos(2 + 0.3 * i * i)
  end
  into[#into + 1], into[#into + 2], into[#into + 3] = along, across, t:norm_value(2)
end

--- Raises on every rank, naming the tensor, unless the adapters' results agree on all ranks within a relative tolerance
--- of 1/1000 (CPU types round differently). Every tensor must be planned. [collective]
function M.check(self, comm)
  if comm.size == 1 then return end
  local mine = {}
  T.scope(function()
    for i = 1, #self.shapes do
      for _, adapter in ipairs(self.adapters) do
        for _, t in ipairs(adapter:samples(i, comm)) do look(t, mine) end
      end
    end
  end)
  local most = comm:allreduce(T.tensor(mine), "max")
  local least = comm:allreduce(T.tensor(mine), "min")
  local a, b, each = most:data(), least:data(), #mine / #self.shapes
  for k = 0, #mine - 1 do
    local size = math.max(math.abs(a[k]), math.abs(b[k]))
    local length = math.max(a[k - k % 3 + 2], 1e-30) -- the tensor's norm, to which differences are relative
    if a[k] - b[k] > 1e-3 * math.max(size, length) then
      local i = math.floor(k / each) + 1
      raise(("%s: tensor %s: the ranks' functions make different gradients of the same numbers (%.6g on one rank, " ..
        "%.6g on another): they must depend on the shape and the options alone"):format(self.name,
        self.names[i] or brief(i), b[k], a[k]))
    end
  end
end

return M
