--- Memories of averages that are encoded again. Only the rank that owns a message has its memory. A plan for another
-- set of tensors has other owners: then all ranks announce the memories that they have, and each is sent to its new
-- owner, in the order of their names, which all ranks know.
local T = require "atomo.tensor"

local M = {}

--- Returns the ranks that have each memory, ascending, its number of elements and type: {[name] = {numel=, dtype=,
--- rank, ...}}.
--- [collective]
local function holders(comm, held)
  local parts, all = {}, {}
  for name, memory in pairs(held) do
    parts[#parts + 1] = table.concat {name, "\0", ("%d %s"):format(memory:numel(), memory:dtype()), "\0"}
  end
  for r, text in ipairs(comm:allgatherv(table.concat(parts))) do
    for name, numel, dtype in text:gmatch "(%Z+)%z(%d+) (%w+)%z" do
      all[name] = all[name] or {numel = tonumber(numel), dtype = dtype}
      table.insert(all[name], r - 1)
    end
  end
  return all
end

--- Returns the rank from which the owner gets its memory: itself if it has one (in earlier checkpoints all ranks have
--- it), else the only rank that has; nil if several have.
local function source(found, owner)
  for _, rank in ipairs(found) do
    if rank == owner then return rank end
  end
  return #found == 1 and found[1] or nil
end

--- Sends one memory to its owner and removes it on all other ranks; owner nil: on all ranks. Returns false if no rank
--- has it any more.
local function move(comm, held, name, found, owner)
  local from = owner and source(found, owner)
  if from and from ~= owner then
    if comm.rank == from then comm:send(held[name], owner) end
    if comm.rank == owner then held[name] = comm:recv(T.outside_scope(T.empty, {found.numel}, found.dtype), from) end
  end
  if not from or comm.rank ~= owner then held[name] = nil end
  return from ~= nil
end

--- Sends memories to their owners. owner_of(name): a rank; "waits" if the present plan has no such tensor (the memory
--- stays where it is); nil if it has the tensor, but no such message. [collective]
---@param comm table
---@param held table<string, atomo.Tensor>  memories of this rank by name; changed
---@return string[] lost  names of memories that no rank has any more
function M.run(comm, held, owner_of)
  local all, names, lost = holders(comm, held), {}, {}
  for name in pairs(all) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local owner = owner_of(name)
    if owner ~= "waits" and not move(comm, held, name, all[name], owner) then lost[#lost + 1] = name end
  end
  return lost
end

return M
