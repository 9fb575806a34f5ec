--- What the compressors of an exchange remember (error feedback, PowerSGD's factors) and have learnt (prices, kept
-- bases), by the tensor that it belongs to: "/NAME [shape]", "again/NAME [shape]" of the second way, "between./NAME
-- [shape]" of the leaders' exchange; ".learnt/NAME [shape]" and so on of what was learnt, "/*step" of a whole step. It
-- finds its tensor where the set of tensors is another than when it was saved (parameters were frozen, or train again).
-- Earlier checkpoints have the numbers of messages: "1", "again.1", "between.1". The second way's memory of a message
-- lies with the rank that owns it (handover.lua).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local files = require "atomo.core.files"
local handover = require "atomo.exchange.handover"

local M = {}

--- Checksum of names.
function M.names_crc(names)
  local text = table.concat(names, "\n")
  return f.C.atomo_crc32(text, #text)
end

--- Message m by its tensor's name (small ones that are joined: by all their names) and, of a piece, its rows.
local function key_of(plan, m)
  local t = plan.tensors[m.index]
  local label = t.crc and ("%s, crc %08x"):format(t.label, t.crc) or t.label
  return ("/%s %s%s"):format(label, T.shape_text(m.shape), m.from and (", from row %d"):format(m.from) or "")
end

--- The key of a whole step, in place of a tensor's name: a checksum of its set of tensors. Learnt state is valid only
--- for this set.
local function key_of_step(plan)
  local joined = plan.joined and plan.tensors[1].crc or 0
  return ("/*step, crc %08x, %08x"):format(M.names_crc(plan:labels()), joined)
end

--- Whether an entry is learnt state, which is not carried over to another set of tensors. A tensor's name, which comes
--- after the "/", does not count.
function M.is_learnt(name) return name:match("^[^/]*"):find("learnt", 1, true) ~= nil end

--- Whether this rank holds message m's entry of a way's codec: of the second way, the owner alone has a memory.
local function is_held(plan, way, m, name)
  return way ~= "again" or not m or M.is_learnt(name) or plan.owner(m) == plan.comm.rank
end

local function add(plan, state, way, codec)
  for name, memory in pairs(codec:state_dict()) do
    local kind, number = name:match "^(.-)%.?(%d+)$"
    local m = plan.messages[tonumber(number)]
    local key = number == "0" and key_of_step(plan) or m and is_held(plan, way, m, name) and key_of(plan, m)
    if key then state[("%s%s%s"):format(way, kind == "" and "" or "." .. kind, key)] = memory end
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

--- What a name says of a way: the name that the way's codec has for it, or nil. numbers: of messages, by key.
local function codec_name(name, way, numbers)
  if name:find("/", 1, true) then
    if name:sub(1, #way) ~= way then return end
    local dot, kind, key = name:sub(#way + 1):match "^(%.?)([^/]*)(/.*)$"
    local number = key and numbers[key]
    if not number or (kind ~= "" and dot == "") then return end
    return kind == "" and number or ("%s.%s"):format(kind, number)
  end
  local room, rest = name:match "^(again)%.(.+)$"
  if (room or "") == way then return rest or name end
end

--- A codec's share of `remembered`, by the numbers of messages; what is of no message, or was learnt of another set of
--- tensors, is left out.
local function pick(plan, remembered, way)
  local state, numbers, of_this_set = {}, {[key_of_step(plan)] = "0"}, false
  for k, m in ipairs(plan.messages) do numbers[key_of(plan, m)] = ("%d"):format(k) end
  for name, memory in pairs(remembered) do
    local own = codec_name(name, way, numbers)
    local number = own and tonumber(own:match "%d+$")
    local fits = number and number <= #plan.messages and memory:numel() > 0
    if fits and is_held(plan, way, plan.messages[number], own) then
      state[own], of_this_set = memory, of_this_set or number == 0
    end
  end
  for name in pairs(state) do
    if not of_this_set and name:find "learnt%." then state[name] = nil end
  end
  return state
end

--- The tensors of this plan that these memories were of, though of none of its messages, in order.
local function begun_anew(plan, keys, of_key)
  local labels, seen = {}, {}
  for key in pairs(keys) do
    for k, t in ipairs(of_key[key] and {} or plan.tensors) do
      local joined = t.crc and key:find "^/of %d+ small gradients, crc "
      if not seen[k] and (joined or key:sub(1, #t.label + 3) == ("/%s ["):format(t.label)) then
        seen[k], labels[#labels + 1] = true, t.label
      end
    end
  end
  table.sort(labels)
  return labels
end

--- Brings what is to be put back to the ranks that own it in this plan; rank 0 says which tensors begin anew, since
--- their pieces are others. [collective]
function M.hand_over(ex)
  local plan, remembered, of_key, keys, held = ex.plan, ex.remembered or {}, {}, {}, {}
  for _, m in ipairs(plan.messages) do of_key[key_of(plan, m)] = m end
  for name, memory in pairs(remembered) do
    local way, key = name:match "^([^/]*)(/.*)$"
    if key and not M.is_learnt(name) then
      keys[key] = true
      if way:find "^again" then held[name], remembered[name] = memory, nil end
    end
  end
  local lost = plan.second and handover.run(ex.comm, held, function(name)
    local m = of_key[name:match "/.*$"]
    return m and plan.owner(m)
  end)
  for _, name in ipairs(lost or {}) do keys[name:match "/.*$"] = true end
  for name, memory in pairs(held) do remembered[name] = memory end
  ex.remembered = next(remembered) and remembered or false
  local labels = begun_anew(plan, keys, of_key)
  if #labels > 0 and ex.comm.rank == 0 then
    local tell = ex.notify or files.say
    tell(("exchange: step %d: what compressors remembered of %s begins anew: it travels in other pieces than before")
      :format(ex.step, table.concat(labels, ", ")))
  end
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

return M
