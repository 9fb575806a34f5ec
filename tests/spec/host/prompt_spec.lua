-- The prompt's globals atomo, help and time, and its printing of values.
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)

--- Returns what the prompt prints for these lines.
local function prompt(...)
  local out, code = spawn.host("-i", {stdin = table.concat({...}, "\n") .. "\n"})
  assert.equal(0, code, out)
  return out
end

local function has(text, want)
  assert(text:find(want, 1, true), ("expected %q in:\n%s"):format(want, text))
end

describe("the prompt", function()
  spec("has atomo loaded, and shows tables and tensors", function()
    assert.equal("6\n", prompt "atomo.ones(2, 3):sum():item()")
    has(prompt "atomo.ones(2, 3)", "[atomo.Tensor f32 2x3]\n")
    assert.equal('{1, "a", {}, n = {x = 2.5}}\t7\tnil\ts\n', prompt "{1, 'a', {}, n = {x = 2.5}}, 7, nil, 's'")
    assert.equal('{[0] = 1, ["a b"] = false, t = [atomo.Tensor f32 2]}\n', prompt(
      "{[0] = 1, ['a b'] = false, t = atomo.ones(2)}"))
  end)

  spec("names its own line in an error, also of a call whose value is printed", function()
    for line, want in pairs {["atomo.randn(2, 3):matmul(atomo.randn(2, 3))"] = "^stdin:1: matmul: %[2,3%] x %[2,3%]",
      ["= atomo.ones(2):view(3)"] = "^stdin:1: ", ["local x = atomo.ones(2):view(3)"] = "^stdin:1: "} do
      local out = prompt(line)
      assert.matches(want, out)
      assert.matches("\nstack traceback:\n\tstdin:1: in main chunk\n$", out)
    end
    assert.equal("nil\tnil\n3\n", prompt("", "-- nothing", "nil, nil", "(function() end)()", "  ", "3"))
  end)

  spec("cuts long, deep and circular tables", function()
    has(prompt("t = {} for i = 1, 1000 do t[i] = i end", "t"), "... 960 more")
    assert.equal("{{{{...}}}}\n", prompt "{{{{{}}}}}")
    assert.equal("{me = (a table above)}\n", prompt("t = {}", "t.me = t", "t"))
    has(prompt "setmetatable({}, {__tostring = function() error 'no text' end})", "no text")
  end)

  spec("describes functions, modules and objects", function()
    local out = prompt "help(atomo.compressors)"
    has(out, "()\n  Returns a list of all compressors")
    assert.matches("%[%S+/compress/init%.lua:%d+%]\n", out)
    assert.equal("atomo.compressors" .. out, prompt "help 'atomo.compressors'")
    has(prompt "help 'atomo.nn.Lineer'", "atomo.nn.Lineer: there is no Lineer in nn")
    has(prompt "help 'nn.Linear'", "in_features")
    has(prompt "help 'Tensor:cumprod'", "Returns the running products along dim")
    has(prompt "help 'nn.Lineer'", "nn.Lineer: there is no Lineer in nn")
    has(prompt "help 'nm.Linear'", "nm.Linear: there is no nm in the globals")
    has(prompt "help()", "time(f, ...)")
    has(prompt "help(atomo)", "  train ")
    has(prompt "help(atomo.ones(1))", "Returns self if it is contiguous")
    has(prompt "help(function() end)", "defined at the prompt")
    has(prompt "help(3)", "a number")
  end)

  spec("times a call", function()
    assert.matches("^[%d.]+ [um]?s a call %(median of %d+, least [%d.]+ [um]?s%)\n$", prompt "time(math.sqrt, 4)")
    has(prompt "time(3)", "time: the argument is a number, expected a function")
  end)

  spec("keeps globals of the script, and scripts have none of its own", function()
    assert.equal("mine\tfunction\n", spawn.host("-i -e 'help = [[mine]]'", {stdin = "help, type(time)\n"}))
    assert.equal("nil\tnil\tnil\n", (spawn.host {"-e", "print(atomo, help, time)"}))
  end)
end)
