--- Checks that compressor, topology and options of an exchange can be combined, when it is made and before anything is
-- sent. A topology's function `refuses` returns why it cannot be used; the error lists the topologies that can.
local raise = require("atomo.ffi").raise
local brief = require "atomo.core.brief"

local M = {}

local topologies = {"allreduce", "allgather", "ps", "sharded", "hierarchical"}
M.topologies = topologies

--- Returns a topology's table.
function M.topology(name) return require("atomo.exchange.topology." .. name) end

--- Returns why topology `name` cannot be used with o: {compressor=, feedback=, size=, downlink=, inter_node=}; nil if
--- it can.
local function reason(name, o)
  local refuses = M.topology(name).refuses
  return refuses and refuses(o, reason)
end

local function refusal(name, o)
  local why = reason(name, o)
  if why then return ("topology %s %s"):format(name, why) end
end

--- Returns why a compressor cannot be used with a setting {topology=, downlink=, inter_node=} on `size` ranks; nil if
--- it can.
function M.refusal(compressor, setting, size)
  return refusal(setting.topology, {compressor = compressor, feedback = M.feeds_back(compressor), size = size,
    downlink = setting.downlink or "dense", inter_node = setting.inter_node or "auto"})
end

local function those_that_can(o)
  local list = {}
  for _, name in ipairs(topologies) do
    -- with default options, since those given are for one topology only
    local plain = {compressor = o.compressor, feedback = o.feedback, size = o.size, downlink = "dense",
      inter_node = "auto"}
    if not refusal(name, plain) then list[#list + 1] = name end
  end
  return table.concat(list, ", ")
end

--- Does the compressor have error feedback (ef=true)?
function M.feeds_back(compressor)
  return compressor.ef == true or tostring(compressor):find "[:,]ef=true" ~= nil
end

--- Raises if the settings of an exchange over `size` ranks cannot be combined; the error lists topologies that can.
function M.check(settings, topology, compressor, size)
  local downlink, inter_node = settings.downlink, settings.inter_node
  local o = {compressor = compressor, feedback = M.feeds_back(compressor), size = size, downlink = downlink,
    inter_node = inter_node}
  local why = refusal(topology, o)
  if why then
    raise(("exchange: %s; '%s' on %d rank%s can go by topology %s"):format(why, brief(compressor), o.size,
      o.size == 1 and "" or "s", those_that_can(o)))
  end
  if downlink ~= "dense" and topology ~= "ps" and inter_node ~= "ps" then
    raise(("exchange: downlink = %s is only for topology ps, or hierarchical with inter_node = ps; " ..
      "the topology is %s"):format(downlink, topology))
  end
  if inter_node ~= "auto" and topology ~= "hierarchical" then
    raise(("exchange: inter_node = %s is only for topology hierarchical; the topology is %s"):format(inter_node,
      topology))
  end
end

return M
