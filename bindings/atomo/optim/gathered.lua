--- The blocks of a sharded optimizer (shards.lua), gathered from the ranks' ranges: one after the other, on one rank
-- for a checkpoint, on all for state_dict and unshard.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local slice = require "atomo.optim.slice"
local C, check, ffi = f.C, f.check, f.ffi

local STATE_TAG = 32000 -- of the messages that bring a block's ranges together on one rank

local M = {}

--- Returns the sorted names of a group's blocks.
local function names_of(group)
  local names = {}
  for name in pairs(group.state) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- Sends the ranges of a block to `root`, where they are put into `whole`.
local function send_to_root(self, group, block, root, whole)
  local comm, cuts = self.comm, self.cuts[group]
  if comm.rank ~= root then
    if block:numel() > 0 then comm:send(block, root, STATE_TAG) end
    return
  end
  for r = 0, comm.size - 1 do
    local n = cuts[r + 1] - cuts[r]
    if n > 0 and r ~= root then
      local part = slice(whole, cuts[r], n)
      comm:recv(part, r, STATE_TAG)
      part:free()
    end
  end
end

local function send_to_all(self, group, whole)
  local comm, cuts, parts = self.comm, self.cuts[group], {}
  local handles, owners = ffi.new("atomo_tensor *[?]", comm.size), ffi.new("int[?]", comm.size)
  for r = 0, comm.size - 1 do
    parts[r] = slice(whole, cuts[r], cuts[r + 1] - cuts[r])
    handles[r], owners[r] = parts[r].h, r
  end
  check(C.atomo_comm_allgather_parts(comm.h, handles, owners, comm.size))
  for r = 0, comm.size - 1 do parts[r]:free() end
end

--- Returns a whole block, on `root` only, nil elsewhere; without root on every rank. [collective]
local function gather(self, group, name, root)
  local comm, block, whole = self.comm, group.state[name], nil
  self:check_same("state " .. name, function()
    if not root or comm.rank == root then whole = T.zeros(group.n) end
    return {}
  end)
  if whole and block:numel() > 0 then
    local own = slice(whole, group.from, block:numel())
    own:copy_(block)
    own:free()
  end
  if root then send_to_root(self, group, block, root, whole) else send_to_all(self, group, whole) end
  return whole
end

--- Shards:each_block.
---@param self atomo.Shards
function M.each_block(self, fn, root)
  local groups = self.optimizer.groups
  self:check_same("state", function()
    local items = {{"steps", self.optimizer.steps}}
    for k, group in ipairs(groups) do items[k + 1] = {("group %d: blocks"):format(k), names_of(group)} end
    return items
  end)
  for k, group in ipairs(groups) do
    for _, name in ipairs(names_of(group)) do fn(group, k, name, gather(self, group, name, root)) end
  end
end

--- Shards:dissolve.
---@param self atomo.Shards
function M.dissolve(self)
  local whole = {}
  for k in ipairs(self.optimizer.groups) do whole[k] = {} end
  T.outside_scope(M.each_block, self, function(_, k, name, block) whole[k][name] = block end)
  for k, group in ipairs(self.optimizer.groups) do group:put_whole(whole[k]) end
end

return M
