--- State of an exchange's compressors for checkpoints: memories (error feedback, PowerSGD's factors) and learnt state
-- (prices, kept bases). Keys of memories are "/NAME [shape]"; "again/NAME [shape]" for averages that are encoded again
-- (the second way), which only the message's owner has (handover.lua); "between./NAME [shape]" for the leaders'
-- exchange. Keys of learnt state are ".learnt/NAME [shape]" and so on, "/*step" for that of a whole step. Keys have
-- names, so that a tensor gets its memory if the set of tensors has changed (parameters were frozen or unfrozen). The
-- memory of a tensor that is not in the set is kept, and saved, until the tensor is in it again. Keys in earlier
-- checkpoints have numbers of messages: "1", "again.1", "between.1".
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local files = require "atomo.core.files"
local handover = require "atomo.exchange.handover"

local M = {}

--- Returns a checksum of a list of names.
function M.names_crc(names)
  local text = table.concat(names, "\n")
  return f.C.atomo_crc32(text, #text)
end

--- Returns the key of message m: its tensor's name (for joined small ones a checksum of their names), its shape and,
--- for a piece, its first row.
local function key_of(plan, m)
  local t = plan.tensors[m.index]
  local label = t.crc and ("%s, crc %08x"):format(t.label, t.crc) or t.label
  return ("/%s %s%s"):format(label, T.shape_text(m.shape), m.from and (", from row %d"):format(m.from) or "")
end

--- Returns the key of the step's learnt state, a checksum of the set of tensors: it is valid for this set only.
local function key_of_step(plan)
  local joined = plan.joined and plan.tensors[1].crc or 0
  return ("/*step, crc %08x, %08x"):format(M.names_crc(plan:labels()), joined)
end

--- Is an entry learnt state (by the part of its key before "/", since a tensor's name may contain "learnt")?
function M.is_learnt(name) return name:match("^[^/]*"):find("learnt", 1, true) ~= nil end

--- Does this rank have entry `name` of message m? Only the owner has memories of the second way ("again").
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

--- Returns the state of all compressors by key. Before the first step it is the state that will be restored then.
---@return table<string, atomo.Tensor>
function M.of(ex)
  local state, plan, between = {}, ex.plan, ex.route.between
  if plan then
    add(plan, state, "", plan.compressor)
    if plan.second then add(plan, state, "again", plan.second) end
  end
  for name, memory in pairs(ex.remembered or {}) do state[name] = memory end
  for name, memory in pairs(between and between:state_dict() or {}) do state["between." .. name] = memory end
  return state
end

--- Converts a key to the name in the state_dict of way's compressor; nil if the key is of another way or of no message.
--- numbers: key -> number of the message.
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

--- Returns the state_dict of way's compressor out of `remembered`, without entries of no message and without learnt
--- state of another set of tensors.
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

--- Returns the plan's tensor that has a memory with this key, in whichever pieces; nil if it is not in the plan.
local function tensor_of(plan, key)
  for _, t in ipairs(plan.tensors) do
    local joined = t.crc and key:find "^/of %d+ small gradients, crc "
    if joined or key:sub(1, #t.label + 3) == ("/%s ["):format(t.label) then return t end
  end
end

--- Returns the sorted labels of tensors that have a memory in `keys`, but of another piece than this plan's messages.
local function begun_anew(plan, keys, of_key)
  local labels, seen = {}, {}
  for key in pairs(keys) do
    local t = not of_key[key] and tensor_of(plan, key)
    if t and not seen[t] then seen[t], labels[#labels + 1] = true, (t.label:gsub("^of ", "")) end
  end
  table.sort(labels)
  return labels
end

--- Returns the memories of tensors that are not in the plan (frozen ones), by name, and unless this set of tensors has
--- learnt state, that of another set, until a step is committed; false if there is neither.
local function waiting(plan, remembered)
  local list, of_this_set = {}, remembered[".learnt" .. key_of_step(plan)] ~= nil
  for name, memory in pairs(remembered) do
    local key = name:match "/.*$"
    local waits = key and not tensor_of(plan, key)
    if M.is_learnt(name) then waits = not of_this_set end
    if waits then list[name] = memory end
  end
  return next(list) and list or false
end

--- Forgets learnt state of another set of tensors, when a step of this set is committed.
function M.forget_others(ex)
  local list = {}
  for name, memory in pairs(ex.remembered) do
    if not M.is_learnt(name) then list[name] = memory end
  end
  ex.remembered = next(list) and list or false
end

--- Sends memories that are to be restored to their owners in this plan (handover.lua). Rank 0 reports tensors whose
--- memories are lost because they are now cut into other pieces. [collective]
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
    local key = name:match "/.*$"
    local m = of_key[key]
    return m and plan.owner(m) or not m and not tensor_of(plan, key) and "waits"
  end)
  for _, name in ipairs(lost or {}) do keys[name:match "/.*$"] = true end
  for name, memory in pairs(held) do remembered[name] = memory end
  ex.remembered = next(remembered) and remembered or false
  local labels = begun_anew(plan, keys, of_key)
  if #labels > 0 and ex.comm.rank == 0 then
    local tell = ex.notify or files.say
    tell(("exchange: step %d: the compressors' memory of %s is reset: it is now sent in other pieces")
      :format(ex.step, table.concat(labels, ", ")))
  end
end

--- Restores the state that was loaded or kept by replan; called after the plan is made.
function M.put_back(ex)
  local remembered, plan = ex.remembered, ex.plan
  if not remembered then return end
  plan.compressor:load_state_dict(pick(plan, remembered, ""))
  if plan.second then plan.second:load_state_dict(pick(plan, remembered, "again")) end
  ex.remembered = waiting(plan, remembered)
end

--- Loads a result of M.of, at once if there is a plan [then collective], else when it is made.
function M.load(ex, state)
  local own, between = {}, {}
  for name, memory in pairs(state) do
    local rest = name:match "^between%.(.+)$"
    if rest then between[rest] = memory else own[name] = T.outside_scope(memory.clone, memory) end
  end
  if ex.route.between then ex.route.between:load_state_dict(between) end
  ex.remembered = own
  if ex.plan then
    M.hand_over(ex)
    M.put_back(ex)
  end
end

return M
