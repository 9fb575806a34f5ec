--- The route: what an exchange opens before it knows any gradient: the topology's table, communicators and, for
--- hierarchical, the leaders' exchange. It can be replaced between two steps.
local messages = require "atomo.exchange.messages"
local options = require "atomo.exchange.options"
local rules = require "atomo.exchange.compatibility"

local M = {}

--- Returns the topology for option topology: "default" and nil depend on the compressor.
local function topology_for(name, compressor)
  if name and name ~= "default" and name ~= "auto" then return name end
  return compressor.name == "none" and "allreduce" or "allgather"
end

--- Interprets the options; returns {comm=, settings=, topology=, compressor=, route=}. Raises if they cannot be
--- combined.
function M.choose(opts)
  local settings, comm = options.read(opts), opts.comm or require("atomo.comm.mpi").world
  settings.overlap = settings.overlap and comm.size > 1
  local compressor = messages.compressor(settings, "up")
  local name = topology_for(opts.topology, compressor)
  if settings.fuse_small == "auto" then settings.fuse_small = compressor.name == "auto" and "compress" or "dense" end
  rules.check(settings, name, compressor, comm.size)
  local topology = rules.topology(name)
  settings.share = topology.share and topology.share(comm.size)
  if settings.share then compressor = messages.compressor(settings, "up") end
  local route = {topology = topology, comms = {comm}, scale = 1 / comm.size, weight = 1, between = false,
    dense_program = {{"allreduce", comm}}, spread_program = false}
  return {comm = comm, settings = settings, topology = name, compressor = compressor, route = route}
end

--- Makes the topology's communicators, and for hierarchical the leaders' exchange, by exchange(options). [collective]
function M.open(chosen, exchange)
  local route = chosen.route
  if route.topology.open then route.topology.open(route, chosen.settings, chosen.compressor, exchange) end
end

--- Closes the communicators that a route has made.
function M.close(route)
  for k, comm in pairs(route.comms) do
    if k > 1 then comm:close() end
  end
end

return M
