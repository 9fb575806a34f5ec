--- What can work together: compressor, topology and options of an exchange, checked when it is made, on every rank
-- alike and before anything is sent. A topology says why it cannot carry something (its `refuses`); here is what can.
local raise = require("atomo.ffi").raise

local M = {}

local topologies = {"allreduce", "allgather", "ps", "sharded", "hierarchical"}
M.topologies = topologies

--- The table of a topology.
function M.topology(name) return require("atomo.exchange.topology." .. name) end

--- Why topology `name` cannot do what o asks for: {compressor=, feedback=, size=, down=, inner=}; nil where it can.
local function reason(name, o)
  local refuses = M.topology(name).refuses
  return refuses and refuses(o, reason)
end

local function refusal(name, o)
  local why = reason(name, o)
  if why then return ("topology %s %s"):format(name, why) end
end

--- Why a compressor cannot go as a setting {topology=, down=, inner=} says on `size` ranks; nil where it can.
function M.refusal(compressor, setting, size)
  return refusal(setting.topology, {compressor = compressor, feedback = M.feeds_back(compressor), size = size,
    down = setting.down or "dense", inner = setting.inner or "auto"})
end

local function those_that_can(o)
  local list = {}
  for _, name in ipairs(topologies) do
    -- options of one topology mean nothing to the others
    local plain = {compressor = o.compressor, feedback = o.feedback, size = o.size, down = "dense", inner = "auto"}
    if not refusal(name, plain) then list[#list + 1] = name end
  end
  return table.concat(list, ", ")
end

--- True where error feedback keeps what the compressor leaves out.
function M.feeds_back(compressor)
  return compressor.ef == true or tostring(compressor):find "[:,]ef=true" ~= nil
end

--- Raises where the settings of an exchange over `size` ranks cannot work, with the topologies that can.
function M.check(settings, topology, compressor, size)
  local down, inner = settings.down, settings.inner
  local o = {compressor = compressor, feedback = M.feeds_back(compressor), size = size, down = down, inner = inner}
  local why = refusal(topology, o)
  if why then
    raise(("exchange: %s; '%s' on %d rank%s can go by topology %s"):format(why, tostring(compressor), o.size,
      o.size == 1 and "" or "s", those_that_can(o)))
  end
  if down ~= "dense" and topology ~= "ps" and inner ~= "ps" then
    raise(("exchange: down = %s is the way back from a parameter server: it wants topology ps, or hierarchical with " ..
      "inner = ps; the topology is %s"):format(down, topology))
  end
  if inner ~= "auto" and topology ~= "hierarchical" then
    raise(("exchange: inner = %s is the topology between the nodes of a hierarchical one; the topology is %s"):format(
      inner, topology))
  end
end

return M
