-- The memory (error feedback, factors) of a tensor that is frozen for some steps is kept, under every topology: it is
-- unchanged when the tensor trains again, and in checkpoints saved in between. State that is loaded after the plan is
-- made goes to the memories' owners. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local matrix = require "support.exchange_matrix"
local named_steps = require "support.named_steps"
local world = atomo.mpi.world
local atomo_crc32 = require("atomo.ffi").C.atomo_crc32

local shapes = {a = {30, 50}, b = {20, 60}, c = {50, 25}, d = {80, 20}, g = {7}, h = {24, 24}, i = {40, 40}}
local all, few = {"a", "b", "c", "d", "g", "h", "i"}, {"c", "d", "g", "h"}
local compressors = {"topk:ratio=8,ef=true", "powersgd:ef=true", "entry:ratio=8,ef=true", "svd:ratio=8,every=4,ef=true"}
local topologies = {{topology = "allgather"}, {topology = "sharded"}, {topology = "ps", downlink = "compress"},
  {topology = "hierarchical"}, {topology = "hierarchical", inter_node = "sharded"}}

local _, step = named_steps.of(shapes)

local function opened(o, compress, set)
  return named_steps.opened(o, {compress = compress, min_size = 30, seed = 5}, set)
end

local function is_learnt(name) return name:match("^[^/]*"):find("learnt", 1, true) ~= nil end

--- Returns the memories of all ranks, name -> length and checksum, without learnt state. Names begin with the rank that
--- has the memory, except those of the second way, which may move.
local function memories(ex)
  local parts, found = {}, {}
  for name, t in pairs(ex:state_dict()) do
    if not is_learnt(name) then
      local key = name:find("again", 1, true) and name or ("rank %d: %s"):format(world.rank, name)
      local bytes = t:bytes()
      parts[#parts + 1] = ("%s\0%d bytes, %d\0"):format(key, #bytes, atomo_crc32(bytes, #bytes))
    end
  end
  for _, text in ipairs(world:allgatherv(table.concat(parts))) do
    for name, sum in text:gmatch "(%Z+)%z(%Z+)%z" do found[name] = sum end
  end
  return found
end

--- Returns the memories of tensors that are not in the set, and their number.
local function of_others(found, set)
  local list, count = {}, 0
  for name, bytes in pairs(found) do
    local label, is_of_set = name:match "/(%S+) %[", false
    for _, other in ipairs(set) do is_of_set = is_of_set or other == label end
    if not is_of_set then list[name], count = bytes, count + 1 end
  end
  return list, count
end

--- Changes the set of tensors that later steps bring.
local function changed(ex, set)
  ex:replan()
  ex:set_names(set)
end

describe("a frozen tensor's memory", function()
  for _, o in ipairs(topologies) do
    for _, compress in ipairs(compressors) do
      local name = ("%s%s, %s"):format(o.topology, o.inter_node and " " .. o.inter_node or "", compress)
      if matrix.possible(o, compress) then
        it("has the same bits when it trains again: " .. name, function()
          local ex, said = opened(o, compress, all), {}
          ex.notify = function(text) said[#said + 1] = text end
          for number = 1, 3 do step(ex, number, all) end
          local before, count = of_others(memories(ex), few)
          assert.is_true(count > 0 or o.topology == "hierarchical", "there is no memory, so this shows nothing")
          changed(ex, few)
          for number = 4, 6 do step(ex, number, few) end
          assert.same(before, (of_others(memories(ex), few)))
          local saved = ex:state_dict()
          changed(ex, all)
          local resumed = opened(o, compress, all)
          resumed:load_state_dict(saved)
          resumed:set_step(ex.step)
          for number = 7, 8 do
            local bytes = step(ex, number, all)
            if not (compress:find "every" or o.topology == "hierarchical") then -- these have learnt state, too
              assert.is_true(bytes == step(resumed, number, all), "step " .. number)
            end
          end
          for _, text in ipairs(said) do
            assert.is_nil(text:find "[ ,][abi][ ,]", text) -- no memory of the frozen tensors was reset
          end
        end)
      end
    end
  end

  it("is used in the first step after it: the average differs from that of an exchange without memory", function()
    local ex, fresh = opened({topology = "allgather"}, compressors[1], all),
      opened({topology = "allgather"}, compressors[1], all)
    for number = 1, 3 do step(ex, number, all) end
    changed(ex, few)
    step(ex, 4, few)
    changed(ex, all)
    fresh:set_step(ex.step)
    local a, b = step(ex, 5, all), step(fresh, 5, all)
    local bytes = 4 * 30 * 50 -- of tensor a
    assert.is_false(a:sub(1, bytes) == b:sub(1, bytes))
  end)
end)

describe("a memory that is reset is reported once, to ex.notify of rank 0:", function()
  for _, o in ipairs {{topology = "allgather"}, {topology = "hierarchical", inter_node = "allgather"},
      {topology = "hierarchical", inter_node = "sharded"}} do
    it(o.topology .. " " .. (o.inter_node or ""), function()
      local names, said = {"a", "g", "h"}, {}
      local ok, ex = matrix.exchange(o, {compress = compressors[1], min_size = 1500, seed = 5, fuse_small = "compress"})
      assert.is_true(ok, tostring(ex))
      ex:set_names(names)
      ex.notify = function(text) said[#said + 1] = text end
      for number = 1, 2 do step(ex, number, names) end
      assert.same({}, said)
      changed(ex, {"a", "h"}) -- g and h were fused in one message; without g it is another one
      step(ex, 3, {"a", "h"})
      assert.equal(world.rank == 0 and 1 or 0, #said)
      local text = "^exchange: step 2: the compressors' memory of %d small gradients is reset"
      if said[1] then assert.matches(text, said[1]) end
    end)
  end
end)

describe("state that is loaded after the plan is made", function()
  for _, o in ipairs {topologies[2], topologies[3]} do
    if matrix.possible(o, compressors[1]) then
      it("goes to the owners of the second way: " .. o.topology, function()
        local ex, other = opened(o, compressors[1], all), opened(o, compressors[1], few)
        for number = 1, 3 do step(ex, number, all) end
        changed(ex, few)
        local saved = ex:state_dict()
        local expected = memories(ex)
        step(other, 1, few)
        other:load_state_dict(saved)
        assert.same(expected, memories(other))
        other:set_step(ex.step)
        for number = 4, 5 do assert.is_true(step(ex, number, few) == step(other, number, few), "step " .. number) end
      end)
    end
  end
end)
