--- atomo.exchange: opens an exchange (exchange.lua), or one that chooses its setting by measured times (auto/).
local Exchange = require "atomo.exchange.exchange"
local auto = require "atomo.exchange.auto"
local options = require "atomo.exchange.options"
local rules = require "atomo.exchange.compatibility"
local raise = require("atomo.ffi").raise

--- Opens an exchange. Every rank must call it with the same options; raises otherwise. opts:
---   comm          communicator, default atomo.mpi.world
---   compress      a compressor's text or table; default "none"; "adaptive": chosen with the topology by measured times
---   topology      default "default": allreduce for "none", allgather for messages; "auto": by measured times
---   check_after   steps after which a measured choice is checked by measured times, default 50
---   overlap       a communication thread sends while backward continues; default true
---   min_size      tensors with fewer elements are small, default 1024
---   fuse_small    how small tensors, biases and norms are sent: "dense", or "compress": joined into one tensor and
---                 encoded under the step's budget; default: compress for the compressor auto, dense for others
---   seed          of the compressor's random streams, default 0
---   downlink      "dense" (default) or "compress": how topology ps sends averages back
---   inter_node    topology between the hosts of a hierarchical one
---   message_buckets  parts in which a step's messages are sent, 1 to 64; default: about 6 (sharded: 3), fewer where a
---                 part would have less than 600 bytes, or what topology auto chooses. Fewer wait less on links of high
---                 latency, more overlap with backward
---   stall_warn    seconds without progress until the watchdog warns, 60; 0: never
---   stall_abort   seconds without progress until it ends the job, 600; 0: never
---   flight_prefix the flight recorder's files are PREFIX-rankN.jsonl
---   checked       every collective on comm first compares fingerprints over the ranks; default true
--- Deprecated names of options are in options.lua. [collective]
---@param opts table?
---@return atomo.Exchange
---@param more nil refused: options are one table
---@usage atomo.exchange({compress = "svd:ratio=64"}).topology --> allgather
local function exchange(opts, more)
  if more ~= nil then raise "exchange: got a second argument, expected one table: {compress = ..., topology = ...}" end
  opts = options.current(opts or {})
  local comm, measured, free = opts.comm or require("atomo.comm.mpi").world, auto.wanted(opts)
  if measured and comm.size > 1 then return auto.new(opts) end
  if not free then return Exchange.new(opts) end
  local one = {} -- options for a single rank, which sends nothing
  for key, value in pairs(opts) do one[key] = value end
  one.compress = "none"
  return Exchange.new(one)
end

return {exchange = exchange, topologies = rules.topologies}
