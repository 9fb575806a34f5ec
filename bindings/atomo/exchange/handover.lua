--- The memories of averages that are encoded a second time: each lies with the rank that owns the message, and with no
-- other. A plan of another set of tensors has other owners. All ranks then tell which memories they hold, and what has
-- another owner goes from its holder to that one, in the order of the names, which all ranks know.
local T = require "atomo.tensor"

local M = {}

--- The holders of each memory, ascending, and how many numbers it has: {[name] = {numel=, rank, ...}}. [collective]
local function holders(comm, held)
  local parts, all = {}, {}
  for name, memory in pairs(held) do parts[#parts + 1] = ("%s%s%d%s"):format(name, "\0", memory:numel(), "\0") end
  for r, text in ipairs(comm:allgatherv(table.concat(parts))) do
    for name, numel in text:gmatch "(%Z+)%z(%d+)%z" do
      all[name] = all[name] or {numel = tonumber(numel)}
      table.insert(all[name], r - 1)
    end
  end
  return all
end

--- The rank that the owner's memory comes from: the owner itself where it holds one (earlier checkpoints have it on all
--- ranks), else the only holder.
local function source(found, owner)
  for _, rank in ipairs(found) do
    if rank == owner then return rank end
  end
  return #found == 1 and found[1] or nil
end

--- Brings the memories that this rank holds, by name, to their owners; `held` is changed. owner_of(name): a rank, or
--- nil where the present plan has no such message. Returns the names of all that nobody holds any more. [collective]
---@param comm table
---@param held table<string, atomo.Tensor>
---@return string[]
function M.run(comm, held, owner_of)
  local all, names, lost = holders(comm, held), {}, {}
  for name in pairs(all) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local owner = owner_of(name)
    local from = owner and source(all[name], owner)
    if not from then
      lost[#lost + 1] = name
    elseif from ~= owner and comm.rank == from then
      comm:send(held[name], owner)
    elseif from ~= owner and comm.rank == owner then
      held[name] = comm:recv(T.outside_scope(T.empty, {all[name].numel}), from)
    end
    if not from or comm.rank ~= owner then held[name] = nil end
  end
  return lost
end

return M
