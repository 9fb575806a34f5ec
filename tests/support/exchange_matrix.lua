-- All combinations of topology and compressor, for specs that apply to all of them, and which can be combined, written
-- independently of the library's rules.
local atomo = require "atomo"
local hosts_of_two = require "support.hosts"
local world = atomo.mpi.world

local M = {hosts = hosts_of_two}

M.topologies = {
  {topology = "allreduce"}, {topology = "allgather"}, {topology = "ps"}, {topology = "ps", downlink = "compress"},
  {topology = "sharded"}, {topology = "hierarchical", comm = hosts_of_two},
  {topology = "hierarchical", comm = hosts_of_two, inter_node = "allreduce"},
  {topology = "hierarchical", comm = hosts_of_two, inter_node = "sharded"},
  {topology = "hierarchical", comm = hosts_of_two, inter_node = "ps", downlink = "compress"},
}

--- Returns all built-in compressors, and the texts in `more`.
function M.compressors(more)
  local list = {}
  for _, entry in ipairs(atomo.compressors()) do
    if not entry.make then
      list[#list + 1] = entry.name == "auto" and "auto:ratio=16" or entry.name -- "auto" alone is a choice by the clock
    end
  end
  for _, text in ipairs(more) do list[#list + 1] = text end
  return list
end

function M.name(o, compress)
  return ("%s by %s%s%s"):format(compress, o.topology, o.downlink and " down " .. o.downlink or "",
    o.inter_node and " over " .. o.inter_node or "")
end

--- Returns true and an exchange, or false and the error.
function M.exchange(o, options)
  local all = {}
  for key, value in pairs(options) do all[key] = value end
  for key, value in pairs(o) do all[key] = value end
  return pcall(atomo.exchange, all)
end

--- Can topology options and a compressor be combined? If not, also returns a part of the expected error.
function M.possible(o, compress)
  local c = atomo.compressor(compress)
  if o.topology == "ps" and world.size == 1 then return false, "wants a server" end
  local again = o.topology == "sharded" or o.inter_node == "sharded" or o.downlink == "compress"
  if again and not c.unbiased and not compress:find "ef=true" then return false, "encodes the average a second time" end
  local adds = o.topology == "allreduce" or o.inter_node == "allreduce"
  if adds and not c.linear then return false, "cannot be added" end
  if o.inter_node == "ps" and world.size < 3 then return false, "wants two nodes" end
  return true
end

return M
