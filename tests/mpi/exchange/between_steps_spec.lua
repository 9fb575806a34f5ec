-- Methods of an exchange that are for the time between two steps are refused within one, when threads may be working on
-- the state; the step then continues. Wrong arguments are refused by name.
local atomo = require "atomo"
local world = atomo.mpi.world

local function refused(pattern, fn, ...)
  local ok, why = pcall(fn, ...)
  assert.is_false(ok, "not refused: " .. pattern)
  assert.matches(pattern, why)
end

local function gradient(i, step)
  atomo.manual_seed(100 * step + 10 * i + world.rank)
  return atomo.randn(16, 12)
end

--- Takes three steps; calls between(ex) within the third one. Returns the averages of the last step, as text.
local function averages(options, between)
  local ex, left = atomo.exchange(options), {}
  for step = 1, 3 do
    local given = {}
    for i = 3, 1, -1 do
      given[i] = gradient(i, step)
      ex:push(i, given[i])
      if step == 3 and i == 2 and between then between(ex) end
    end
    ex:finish()
    for i, g in ipairs(given) do left[i] = g:bytes() end
  end
  return left
end

describe("within a step", function()
  for _, options in ipairs {{compress = "svd:ratio=2,ef=true"}, {compress = "powersgd:rank=1", overlap = false},
    {compress = "topk:ratio=4,ef=true", topology = "sharded"}, {compress = "none"}} do
    options.min_size = 0
    it("state, step and epoch are neither read nor changed: " .. options.compress, function()
      local function between(ex)
        local state = {}
        for name, args in pairs {state_dict = {}, load_state_dict = {state}, set_step = {7}, set_epoch = {2},
          replan = {}} do
          refused("exchange: " .. name .. ": step 2 has begun: finish%(%) or drop%(%) ends it", ex[name], ex,
            unpack(args))
        end
      end
      assert.same(averages(options), averages(options, between))
    end)
  end
end)

it("wrong arguments are refused", function()
  local ex = atomo.exchange {compress = "entry:ratio=4", min_size = 0}
  for _, step in ipairs {-1, 0.5, "x", atomo.ones(2)} do
    refused("exchange: set_step: the step is ", ex.set_step, ex, step)
  end
  for _, epoch in ipairs {0.5, "x", {}} do refused("set_epoch: the epoch is ", ex.set_epoch, ex, epoch) end
  refused("exchange: set_names: the names are 'x', a string", ex.set_names, ex, "x")
  refused("exchange: load_state_dict: the state is missing", ex.load_state_dict, ex)
  refused("exchange: load_state_dict: the state is a tensor", ex.load_state_dict, ex, atomo.ones(2))
  local c = atomo.compressor "entry:ratio=4"
  refused("entry: set_epoch: the epoch is 'x'", c.set_epoch, c, "x")
  refused("entry: load_state_dict: the state is 3", c.load_state_dict, c, 3)
end)
