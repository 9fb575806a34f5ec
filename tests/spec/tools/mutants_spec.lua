-- The faults that tests/mutate.lua plants are in code only, and the same for the same seed.
local mutants = require "support.mutants"

local function lines_after(file, text)
  local list = {}
  for _, m in ipairs(mutants.of(file, text)) do list[m.after] = m.kind end
  return list
end

describe("mutants", function()
  it("of C and Lua: operators, constants, conditions, arguments, dropped statements", function()
    local c = lines_after("x.c", "static int f(int a)\n{\n    if (a < b && c) x[1] = g(a, b);\n    h(a);\n}\n")
    assert.same({
      ["    if (a <= b && c) x[1] = g(a, b);"] = "operator", ["    if (a < b || c) x[1] = g(a, b);"] = "operator",
      ["    if (a < b && c) x[2] = g(a, b);"] = "constant", ["    if (a < b && c) x[0] = g(a, b);"] = "constant",
      ["    if (a < b && c) x[1] = g(b, a);"] = "arguments", ["    if (!(a < b && c)) x[1] = g(a, b);"] = "condition",
      ["    ;"] = "statement",
    }, c)
    local lua = lines_after("x.lua", "if a and b ~= 2 then\n  x.y = z\nend\n")
    assert.same({
      ["if a or b ~= 2 then"] = "operator", ["if a and b == 2 then"] = "operator",
      ["if a and b ~= 3 then"] = "constant", ["if not (a and b ~= 2) then"] = "condition", ["  do end"] = "statement",
    }, lua)
  end)

  it("leave comments, texts and the preprocessor alone", function()
    local c = "#define A(x) \\\n    (x + 1)\n/* a + 1 */ // b + 1\nconst char *s = \"a + 1\";\n"
    assert.same({}, lines_after("x.c", c))
    assert.same({}, lines_after("x.lua", "-- a + 1\nlocal s = 'a + 1' --[[ b + 1\n c + 1 ]]\n"))
  end)

  it("change one line each, in the order of the seed", function()
    local text = "local a = b + 1\nlocal c = d * 2\n"
    local list = mutants.of("x.lua", text)
    assert.is_true(#list >= 5)
    for _, m in ipairs(list) do
      local planted = mutants.plant(text, m)
      assert.are_not.equal(text, planted)
      assert.equal(m.before, text:match("[^\n]+", m.line == 1 and 1 or 17))
      assert.is_not_nil(planted:find(m.after, 1, true))
    end
    local one, two, other = {}, {}, {}
    for i = 1, 50 do one[i], two[i], other[i] = i, i, i end
    assert.same(mutants.shuffle(one, 3), mutants.shuffle(two, 3))
    assert.are_not.same(one, mutants.shuffle(other, 4))
  end)
end)
