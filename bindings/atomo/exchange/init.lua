--- atomo.exchange: opens an exchange (exchange.lua), or one that chooses what it does by measured times (auto/).
local Exchange = require "atomo.exchange.exchange"
local auto = require "atomo.exchange.auto"
local options = require "atomo.exchange.options"
local rules = require "atomo.exchange.compatibility"
local raise = require("atomo.ffi").raise

--- opts:
---   comm          default the world
---   compress      a spec; default "none"; "adaptive": chosen with the topology by measured times (auto/)
---   topology      default "default": allreduce for "none", allgather for messages; "auto": by measured times
---   check_after   steps after which a measured choice is held against the clock, default 50
---   overlap       a communication thread sends while backward continues; default true
---   min_size      elements below which a tensor is small, default 1024
---   fuse_small    how small tensors, biases and norms travel: "dense", or "compress": joined into one tensor of the
---                 step's budget; default: compress for the compressor auto, dense for the others
---   seed          of the compressor's random streams
---   downlink      "dense" or "compress": the way back from a ps
---   inter_node    topology between the hosts of a hierarchical one
---   stall_warn    seconds without progress until the watchdog warns, 60; 0: never
---   stall_abort   seconds without progress until it ends the job, 600; 0: never
---   flight_prefix the flight recorder's files are PREFIX-rankN.jsonl
---   checked       every collective on comm first compares what the ranks are about to do; default true
--- Old names of options are those of options.lua. [collective]
---@param opts table?
---@return atomo.Exchange
local function exchange(opts, more)
  if more ~= nil then raise "exchange: got a second argument, expected one table: {compress = ..., topology = ...}" end
  opts = options.current(opts or {})
  local comm, measured, free = opts.comm or require("atomo.comm.mpi").world, auto.wanted(opts)
  if measured and comm.size > 1 then return auto.new(opts) end
  if not free then return Exchange.new(opts) end
  local one = {} -- rank, which sends nothing
  for key, value in pairs(opts) do one[key] = value end
  one.compress = "none"
  return Exchange.new(one)
end

return {exchange = exchange, topologies = rules.topologies}
