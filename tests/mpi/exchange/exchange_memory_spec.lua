-- The memories of an exchange are identified by tensor names: they are kept when the set of tensors changes (parameters
-- are frozen or unfrozen), restored into another set than they were saved from, and available before the first step.
-- For both ways of a topology and for the leaders' exchange. Runs on 1 to 4 ranks.
local atomo = require "atomo"
local world = atomo.mpi.world
local matrix = require "support.exchange_matrix"
local named_steps = require "support.named_steps"

local names = {"a", "b", "c", "d"}
local shapes = {a = {20, 30}, b = {20, 30}, c = {30, 8, 3}, d = {7}}

local _, step = named_steps.of(shapes)

local function opened(o, compress)
  local options = {compress = compress, min_size = 30, seed = 5, fuse_small = "compress"}
  if o.topology == "allreduce" then options.fuse_small = nil end
  return named_steps.opened(o, options, names)
end

local function copies(state)
  local copy = {}
  for name, t in pairs(state) do
    if not name:find "learnt" then copy[name] = t:clone() end -- learnt state is reset by another set of tensors
  end
  return copy
end

local function same_state(a, b, what)
  for name, t in pairs(a) do
    assert.truthy(b[name], ("%s: %s is missing"):format(what, name))
    assert.equal(t:bytes(), b[name]:bytes(), ("%s: %s"):format(what, name))
  end
  for name in pairs(b) do assert.truthy(a[name], ("%s: %s is new"):format(what, name)) end
end

describe("an exchange's memory", function()
  for _, compress in ipairs {"topk:ratio=4,ef=true", "powersgd:ef=true", "entry:ratio=8,ef=true"} do
    for _, o in ipairs(matrix.topologies) do
      if matrix.possible(o, compress) then
        it("is identified by tensor names: " .. matrix.name(o, compress), function()
          local ex = opened(o, compress)
          for number = 1, 3 do step(ex, number, names) end
          local saved = copies(ex:state_dict())
          local size = 0
          for _, memory in pairs(saved) do size = size + memory:norm_value(2) end
          assert.is_true(world:allreduce(atomo.tensor {size}, "sum"):item() > 0)

          ex:replan()
          same_state(saved, copies(ex:state_dict()), "between two plans")
          ex:set_names {"b", "c", "d"}
          local resumed = opened(o, compress)
          resumed:load_state_dict(saved)
          same_state(saved, copies(resumed:state_dict()), "loaded")
          resumed:set_step(ex.step)
          resumed:set_names {"b", "c", "d"} -- a is frozen before the first step
          for number = 4, 5 do
            assert.equal(step(ex, number, {"b", "c", "d"}), step(resumed, number, {"b", "c", "d"}), "step " .. number)
          end
          same_state(ex:state_dict(), resumed:state_dict(), "at the end")
        end)
      end
    end
  end

  it("is read from checkpoints that number messages", function()
    local o = {topology = "allgather"}
    local ex, other = opened(o, "topk:ratio=4,ef=true"), opened(o, "topk:ratio=4,ef=true")
    step(ex, 1, names)
    other:load_state_dict(ex.compressor:state_dict())
    other:set_step(1)
    assert.equal(step(ex, 2, names), step(other, 2, names))
    same_state(ex:state_dict(), other:state_dict(), "after a step")
  end)
end)
