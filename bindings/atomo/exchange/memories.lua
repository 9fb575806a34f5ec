--- What the compressors of an exchange remember (error feedback, PowerSGD's factors), by the tensor that it belongs to:
-- "/NAME [shape]", "again/NAME [shape]" of the second way, "between./NAME [shape]" of the leaders' exchange. It finds
-- its tensor where the set of tensors is another than when it was saved (parameters were frozen, or train again).
-- Earlier checkpoints have the numbers of messages: "1", "again.1", "between.1".
local f = require "atomo.ffi"
local T = require "atomo.tensor"

local M = {}

--- Message m by its tensor's name (small ones that are joined: by all their names) and, of a piece, its rows.
local function key_of(plan, m)
  local t = plan.tensors[m.index]
  local label = t.crc and ("%s, crc %08x"):format(t.label, t.crc) or t.label
  return ("/%s %s%s"):format(label, T.shape_text(m.shape), m.from and (", from row %d"):format(m.from) or "")
end

local function add(plan, state, way, codec)
  for number, memory in pairs(codec:state_dict()) do
    local m = plan.messages[tonumber(number)]
    if m then state[way .. key_of(plan, m)] = memory end
  end
end

--- All that is remembered, by name; before the first step what is to be put back then.
---@return table<string, atomo.Tensor>
function M.of(ex)
  local state, plan, between = {}, ex.plan, ex.route.between
  if plan then
    add(plan, state, "", plan.compressor)
    if plan.second then add(plan, state, "again", plan.second) end
  end
  for name, memory in pairs(not plan and ex.remembered or {}) do state[name] = memory end
  for name, memory in pairs(between and between:state_dict() or {}) do state["between." .. name] = memory end
  return state
end

--- The messages that this rank averages, by number.
local function owned(plan)
  local mine = {}
  for _, bucket in ipairs(plan.buckets) do
    for k = bucket.mine or 1, bucket.mine_last or 0 do mine[k] = true end
  end
  return mine
end

--- Gives every rank what the owners of averages remember of the second way: in another plan a message may have another
--- owner. state: of M.of, where it goes. [collective]
function M.share(ex, state, prefix)
  local plan = ex.plan
  prefix = prefix or ""
  if plan and plan.second then
    local own, mine = plan.second:state_dict(), owned(plan)
    for k, m in ipairs(plan.messages) do
      local memory = own[("%d"):format(k)]
      if memory then
        local sum = mine[k] and memory:clone() or T.zeros_like(memory)
        ex.comm:allreduce(sum, "sum")
        state[prefix .. "again" .. key_of(plan, m)] = sum
      end
    end
  end
  if ex.route.between then M.share(ex.route.between, state, prefix .. "between.") end
end

--- A codec's share of `remembered`, by the numbers of messages; one that is of no message is left out.
local function pick(plan, remembered, way)
  local state = {}
  for k, m in ipairs(plan.messages) do
    local number = ("%d"):format(k)
    local memory = remembered[way .. key_of(plan, m)] or
      remembered[way == "" and number or ("%s.%s"):format(way, number)]
    if memory and memory:numel() > 0 then state[number] = memory end
  end
  return state
end

--- Puts back what was loaded or carried over; after the plan is made.
function M.put_back(ex)
  local remembered, plan = ex.remembered, ex.plan
  if not remembered then return end
  plan.compressor:load_state_dict(pick(plan, remembered, ""))
  if plan.second then plan.second:load_state_dict(pick(plan, remembered, "again")) end
  ex.remembered = false
end

--- Takes what M.of gave, now or when the first step is planned.
function M.load(ex, state)
  local own, between = {}, {}
  for name, memory in pairs(state) do
    local rest = name:match "^between%.(.+)$"
    if rest then between[rest] = memory else own[name] = T.outside_scope(memory.clone, memory) end
  end
  if ex.route.between then ex.route.between:load_state_dict(between) end
  ex.remembered = own
  if ex.plan then M.put_back(ex) end
end

--- Checksum of the names of small gradients that are joined.
function M.names_crc(names)
  local text = table.concat(names, "\n")
  return f.C.atomo_crc32(text, #text)
end

return M
