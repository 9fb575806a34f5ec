-- Out of memory: every operator and layer, forward and backward, with its 1st, 2nd, 3rd ... allocation failing. Each
-- failure raises an error that says so, and after a garbage collection no block is left.
-- test: slow
local atomo = require "atomo"
local C = require("atomo.ffi").C
local memory = require "support.out_of_memory"
local gradients = require "support.gradients"

local function step(fn, inputs)
  for _, t in ipairs(inputs) do t.grad = nil end
  for _, y in ipairs {fn(unpack(inputs))} do
    if y.requires_grad then y:backward(atomo.ones(y:shape()), {retain_graph = true}) end
  end
  for _, t in ipairs(inputs) do t.grad = nil end
end

describe("out of memory in", function()
  local threads
  lazy_setup(function()
    threads = atomo.num_threads()
    atomo.set_num_threads(1)
  end)
  lazy_teardown(function()
    C.atomo_mem_fail_alloc(0)
    atomo.set_num_threads(threads)
  end)

  gradients.each(function(name, fn, make)
    it(name, function()
      local inputs = make()
      for _, t in ipairs(inputs) do
        if t:dtype() == "f32" then atomo.param(t) end
      end
      step(fn, inputs) -- what is made once and kept (plans of convolutions) is made now
      assert.is_true(memory.clean_sweep(function() step(fn, inputs) end) > 0)
    end)
  end)

  it("products in bf16", function()
    local bf16 = require("atomo.autograd.precision").operators
    for _, c in ipairs(gradients.operators) do
      local inputs = {c[3]()}
      for _, t in ipairs(inputs) do atomo.param(t) end
      local function rounded() step(function(...) return atomo.autocast(c[2], ...) end, inputs) end
      if bf16[c[1]] or c[1]:find "matmul" then
        rounded()
        assert.is_true(memory.clean_sweep(rounded) > 0, c[1])
      end
    end
  end)

  for _, engine in ipairs {"gemm", "onednn", "winograd"} do
    it("conv2d by " .. engine, function()
      local chosen = atomo.nn.conv_engine()
      if not pcall(atomo.nn.set_conv_engine, engine) then return pending "built without oneDNN" end
      local inputs = {atomo.param(atomo.randn(2, 6, 6, 16)), atomo.param(atomo.randn(16, 3, 3, 16)),
        atomo.param(atomo.randn(16))}
      local function conv() step(function(x, w, b) return atomo.F.conv2d(x, w, b, {padding = 1}) end, inputs) end
      conv()
      local failures = memory.clean_sweep(conv)
      atomo.nn.set_conv_engine(chosen)
      assert.is_true(failures > 5)
    end)
  end

  it("an optimizer's step", function()
    for _, kind in ipairs {"sgd", "adam", "adamw", "lars", "lamb"} do
      local w = atomo.param(atomo.randn(3, 5))
      local o = atomo.optim[kind] {params = {w}, lr = 0.1}
      local function update() -- with fresh state each time
        for _, group in ipairs(o.groups) do
          group.state, group.views = {}, {}
        end
        o:step()
      end
      update()
      memory.clean_sweep(update)
    end
  end)
end)
