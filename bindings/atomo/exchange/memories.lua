--- What the compressors of an exchange remember (error feedback, PowerSGD's factors), by the tensor that it belongs to:
-- "/NAME [shape]", "again/NAME [shape]" of the second way, "between./NAME [shape]" of the leaders' exchange. It finds
-- its tensor where the set of tensors is another than when it was saved (parameters were frozen, or train again).
-- Earlier checkpoints have the numbers of messages: "1", "again.1", "between.1".
local f = require "atomo.ffi"
local T = require "atomo.tensor"

local M = {}

--- Message m by its tensor's name (small ones that are joined: by all their names) and, of a piece, its rows.
local function key_of(self, m)
  local label = self.labels[m.index]
  if self.joined and m.index == 1 then label = ("%s, crc %08x"):format(label, self.joined.crc) end
  return ("/%s %s%s"):format(label, T.shape_text(m.shape), m.from and (", from row %d"):format(m.from) or "")
end

local function add(self, state, way, codec)
  for number, memory in pairs(codec:state_dict()) do
    local m = self.messages[tonumber(number)]
    if m then state[way .. key_of(self, m)] = memory end
  end
end

--- All that is remembered, by name; before the first step what is to be put back then.
---@return table<string, atomo.Tensor>
function M.of(self)
  local state = {}
  if self.planned and self.messages then
    add(self, state, "", self.compressor)
    if self.second then add(self, state, "again", self.second) end
  end
  for name, memory in pairs(not self.planned and self.remembered or {}) do state[name] = memory end
  for name, memory in pairs(self.between and self.between:state_dict() or {}) do
    state["between." .. name] = memory
  end
  return state
end

local function owned(self)
  local mine = {}
  for _, batch in ipairs(self.batches) do
    for k = batch.mine, batch.mine_last do mine[k] = true end
  end
  return mine
end

--- Gives every rank what the owners of averages remember of the second way: in another plan a message may have another
--- owner. state: of M.of, where it goes. [collective]
function M.share(self, state, prefix)
  prefix = prefix or ""
  if self.planned and self.second and self.messages then
    local own, mine = self.second:state_dict(), owned(self)
    for k, m in ipairs(self.messages) do
      local memory = own[("%d"):format(k)]
      if memory then
        local sum = mine[k] and memory:clone() or T.zeros_like(memory)
        self.comm:allreduce(sum, "sum")
        state[prefix .. "again" .. key_of(self, m)] = sum
      end
    end
  end
  if self.between then M.share(self.between, state, prefix .. "between.") end
end

--- A codec's share of `remembered`, by the numbers of messages; one that is of no message is left out.
local function pick(self, way)
  local state = {}
  for k, m in ipairs(self.messages) do
    local number = ("%d"):format(k)
    local memory = self.remembered[way .. key_of(self, m)] or
      self.remembered[way == "" and number or ("%s.%s"):format(way, number)]
    if memory and memory:numel() > 0 then state[number] = memory end
  end
  return state
end

--- Puts back what was loaded or carried over; after the plan is made.
function M.put_back(self)
  local remembered = self.remembered
  if not remembered then return end
  if self.messages then
    self.compressor:load_state_dict(pick(self, ""))
    if self.second then self.second:load_state_dict(pick(self, "again")) end
  end
  self.remembered = nil
end

--- Takes what M.of gave, now or when the first step is planned.
function M.load(self, state)
  local own, between = {}, {}
  for name, memory in pairs(state) do
    local rest = name:match "^between%.(.+)$"
    if rest then between[rest] = memory else own[name] = T.outside_scope(memory.clone, memory) end
  end
  if self.between then self.between:load_state_dict(between) end
  self.remembered = own
  if self.planned then M.put_back(self) end
end

--- Checksum of the names of small gradients that are joined.
function M.names_crc(names)
  local text = table.concat(names, "\n")
  return f.C.atomo_crc32(text, #text)
end

return M
