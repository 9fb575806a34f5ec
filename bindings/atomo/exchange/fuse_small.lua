--- Small tensors joined into one (small = "compress"): biases, norms and what is below min_size are copied back to back
-- into a flat tensor, which the engines see as gradient 1 and code within the step's budget. One frame serves all, and
-- none of them is too short for its coder. Without it the engines see every gradient under its own number. An override
-- of the compressor ("^fc" -> none) goes before both: such a tensor travels by itself, or dense.
local memories = require "atomo.exchange.memories"
local T = require "atomo.tensor"

local M = {}

local function is_small(self, g) return g:dim() < 2 or g:numel() < self.min_size end

local function name_of(self, i) return self.names and self.names[i] or ("gradient %d"):format(i) end

--- Fixes the engine's numbers: self.place[i] is that of gradient i, self.pushed the tensors and self.labels the names
--- by them; self.joined, where small ones are joined, has the flat tensor, its slices and how many are still to come.
function M.plan(self)
  self.place, self.labels, self.joined = {}, {}, nil
  local small, total = {}, 0
  local joins = self.small == "compress" and self.compressor.name ~= "none" and not self.engine.whole
  for i, g in ipairs(self.given) do
    if joins and is_small(self, g) and not self.compressor:override_of(name_of(self, i)) then
      small[#small + 1] = i
      total = total + g:numel()
    end
  end
  if #small > 0 then
    local buffer, at = T.zeros(total), 1
    self.joined = {buffer = buffer, slice = {}, count = #small, waiting = #small}
    local names = {}
    for k, i in ipairs(small) do
      names[k] = name_of(self, i)
      local n = self.given[i]:numel()
      self.joined.slice[i] = buffer:narrow(1, at, n):view(self.given[i]:shape())
      at = at + n
    end
    self.joined.crc = memories.names_crc(names)
    self.pushed[1], self.labels[1] = buffer, ("of %d small gradients"):format(#small)
  end
  for i, g in ipairs(self.given) do
    if not (self.joined and self.joined.slice[i]) then
      self.pushed[#self.pushed + 1] = g
      self.place[i], self.labels[#self.pushed] = #self.pushed, name_of(self, i)
    end
  end
end

--- Whether the engine's tensor k travels as a message.
function M.is_message(self, k)
  if self.joined and k == 1 then return true end
  local other = self.compressor:override_of(self.labels[k])
  if other then return other ~= "none" end
  return not is_small(self, self.pushed[k])
end

--- Gradient i has come.
function M.place(self, i, grad)
  if self.place[i] then self.pushed[self.place[i]] = grad end
end

--- Hands gradient i to the engine; a small one when it is the last of them.
function M.ready(self, i, grad)
  local joined = self.joined
  if self.place[i] then return self.engine.ready(self, self.place[i], grad) end
  joined.slice[i]:copy_(grad)
  joined.waiting = joined.waiting - 1
  if joined.waiting == 0 then self.engine.ready(self, 1, joined.buffer) end
end

--- Writes the average of the small ones back.
function M.give_back(self)
  for i, slice in pairs(self.joined and self.joined.slice or {}) do self.given[i]:copy_(slice) end
end

--- The step is over.
function M.clear(self)
  for i in pairs(self.given) do self.given[i] = nil end
  for k in pairs(self.pushed) do
    if not (self.joined and k == 1) then self.pushed[k] = nil end
  end
  if self.joined then self.joined.waiting = self.joined.count end
  self.count = 0
end

return M
