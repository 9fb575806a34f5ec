-- Every differentiable operator and layer passes gradcheck. The list comes from the library, so that a new one without
-- a case in tests/support/gradients.lua fails. The numbers of operators in the documents are checked, too.
local atomo = require "atomo"
local autograd = require "atomo.autograd"
local gradients = require "support.gradients"

--- Those of atomo.nn that are classes of layers, by name; Module is their base, and an alias counts once.
local function layers()
  local names = {}
  for name, class in pairs(atomo.nn) do
    local is_layer = type(class) == "table" and rawget(class, "is_module_class") and name ~= "Module"
    if is_layer and name == class.class_name then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

describe("gradcheck", function()
  local checked = {} -- indices of operators that ran forward and backward under it
  require("support.one_thread")(lazy_setup, lazy_teardown)

  gradients.each(function(name, fn, make)
    it("of " .. name, function()
      atomo.manual_seed(3)
      local inputs, opts = make()
      local forward, backward = {}, {}
      autograd.observe(function(pass, op)
        if op.index then (pass == "forward" and forward or backward)[op.index] = true end
      end)
      local done, ok, worst = pcall(atomo.gradcheck, fn, inputs, opts)
      autograd.observe(nil)
      assert.is_true(done, tostring(ok))
      assert.is_true(ok, ("worst relative error %s"):format(tostring(worst)))
      for i in pairs(forward) do checked[i] = checked[i] or backward[i] end
    end)
  end)

  it("covers every operator", function()
    local without, count = {}, 0
    for i, name in ipairs(atomo.operators()) do
      count = count + 1
      if not checked[i] then without[#without + 1] = ("%s (%d)"):format(name, i) end
    end
    assert.equal("", table.concat(without, ", "), "operators without a gradcheck")
    assert.is_true(count >= 60)
  end)

  it("covers every layer", function()
    local without = {}
    for _, name in ipairs(layers()) do
      if not gradients.layers[name] then without[#without + 1] = name end
    end
    assert.equal("", table.concat(without, ", "), "layers without a gradcheck")
    for name in pairs(gradients.layers) do assert.is_truthy(atomo.nn[name], name) end
  end)
end)
