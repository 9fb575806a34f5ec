-- A freed tensor raises on any use, says where it was freed, and names :keep() as the remedy.
local atomo = require "atomo"
local fails = require "support.fails"

describe("a tensor freed by the end of a scope", function()
  local t
  local first = debug.getinfo(1, "l").currentline + 1
  local function body()
    t = atomo.ones(2)
  end
  atomo.scope(body)
  local place = ("at the end of the atomo.scope of %s, lines %d to %d"):format(debug.getinfo(1, "S").short_src, first,
    first + 2)

  it("names the scope's file and lines, and :keep(), on any use", function()
    local u = atomo.ones(2)
    for what, use in pairs {
      ["tensor: 'sum' of a tensor"] = function() return t:sum() end,
      ["add: a tensor"] = function() return t + 1 end,
      ["mul: a tensor"] = function() return 2 * t end,
      ["sub: operand is a tensor"] = function() return u - t end,
      ["unm: a tensor"] = function() return -t end,
      ["copy_: source is a tensor"] = function() u:copy_(t) end,
      ["matmul: operand is a tensor"] = function() u:matmul(t) end,
      ["relu: input is a tensor"] = function() atomo.F.relu(t) end,
      ["cat: tensor 2 is a tensor"] = function() atomo.cat {u, t} end,
      ["tensor: 'free' of a tensor"] = function() t:free() end,
      ["tensor: 'h' of a tensor"] = function() return t.h end,
    } do fails({"freed_spec.lua:", what, "was freed " .. place, "call t:keep() in the scope"}, use) end
    assert.equal(("[tensor freed %s]"):format(place), tostring(t))
  end)

  it("is not one that was kept, returned, or made outside", function()
    local kept, outside = nil, atomo.ones(1)
    local returned = atomo.scope(function()
      kept = atomo.ones(1):keep()
      return atomo.ones(1)
    end)
    assert.equal(3, (kept + returned + outside):item())
  end)

  it("names the innermost scope that owned it", function()
    local inner
    atomo.scope(function()
      local line = debug.getinfo(1, "l").currentline + 1
      atomo.scope(function() inner = atomo.ones(1) end)
      fails((", line %d;"):format(line), function() return inner + 1 end)
    end)
  end)

  it("says so where the scope's function is a module or ended by an error", function()
    local held
    local module = atomo.nn.Sequential {function(x)
      held = x * 2
      return x
    end}
    atomo.scope(module, atomo.ones(1))
    fails("of the atomo.scope of a callable table; call", function() return held + 1 end)
    pcall(atomo.scope, function()
      held = atomo.ones(1)
      error "x"
    end)
    fails("at the end of the atomo.scope of", function() return held + 1 end)
  end)
end)

describe("a tensor freed by :free()", function()
  it("says so", function()
    local t = atomo.ones(2)
    t:free()
    fails({"freed_spec.lua:", "tensor: 'view' of a tensor that was freed by :free()"}, function() t:view(1, 2) end)
    assert.equal("[tensor freed by :free()]", tostring(t))
  end)
end)
