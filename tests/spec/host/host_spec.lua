-- The host program: options, exit codes, arg, the prompt, module paths, math.random.
-- test: slow
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)

local function has(text, want)
  assert(text:find(want, 1, true), ("expected %q in:\n%s"):format(want, text))
end

describe("host options", function()
  spec("run code, in order, with libraries", function()
    local out, code = spawn.host {"-e", "x = 2", "-e", "print(x + 1)", "-l", "string"}
    assert.equal("3\n", out)
    assert.equal(0, code)
  end)

  spec("run a script with arg as in luajit", function()
    local path, remove = spawn.file "print(arg[0], arg[1], arg[2], arg[-1] ~= nil, select('#', ...), ...)"
    local out, code = spawn.host {path, "a b", "-x"}
    assert.equal(("%s\ta b\t-x\ttrue\t2\ta b\t-x\n"):format(path), out)
    assert.equal(0, code)
    out = spawn.host {"--", path}
    assert.equal(("%s\tnil\tnil\ttrue\t0\n"):format(path), out)
    remove()
  end)

  spec("run standard input", function()
    assert.equal("in\t0\n", (spawn.host("", {stdin = "print('in', select('#', ...))"})))
    assert.equal("in\ta\n", (spawn.host("- a", {stdin = "print('in', ...)"})))
  end)

  spec("name the method for a comparison of a tensor with a number, which calls no metamethod", function()
    local out, code = spawn.host {"-e", "local t = require 'atomo'.ones(2) if t < 3 then print(1) end"}
    has(out, "attempt to compare table with number (if the table is a tensor: t:lt(x) compares its elements")
    assert.equal(1, code)
    has(spawn.host {"-e", "if 3 <= require 'atomo'.ones(2) then print(1) end"}, "t:lt(x) compares its elements")
    local other = spawn.host {"-e", "if 3 < 'x' then print(1) end"}
    assert.is_nil(other:find("tensor", 1, true))
  end)

  spec("say versions and help", function()
    local out, code = spawn.host "--version"
    for _, name in ipairs {"atomo-lua", "luajit", "mpi", "blas", "fftw"} do has(out, name) end
    assert.equal(0, code)
    out, code = spawn.host "--help"
    has(out, "usage: atomo-lua")
    assert.equal(0, code)
    out, code = spawn.host "-v"
    has(out, "LuaJIT")
    assert.equal(0, code)
  end)

  spec("wrong ones are usage errors, exit code 2", function()
    for _, args in ipairs {"--bogus", "-x", "-e", "-l"} do
      local out, code = spawn.host(args)
      assert.equal(2, code)
      has(out, "usage:")
      has(out, "'" .. args .. "'")
    end
  end)

  spec("-j and -O reach the compiler", function()
    assert.equal("false\n", (spawn.host {"-joff", "-e", "print((jit.status()))"}))
    local out = spawn.host {"-O0", "-e", "print(select('#', jit.status()))"}
    assert(tonumber(out))
    local text, code = spawn.host {"-jnonesuch", "-e", "print(1)"}
    has(text, "no module jit.nonesuch")
    assert.equal(1, code)
  end)

  spec("-i gives the prompt after the script", function()
    assert.equal("1\n7\n", (spawn.host("-i -e 'print(1) x = 7'", {stdin = "x\n"})))
  end)
end)

describe("host errors", function()
  spec("have a traceback and exit code 1", function()
    local path, remove = spawn.file "local function f() error 'boom' end\nf()"
    local out, code = spawn.host {path}
    has(out, path .. ":1: boom")
    has(out, "stack traceback")
    has(out, path .. ":2: in main chunk")
    assert.equal(1, code)
    remove()
  end)

  spec("show the calls of the script, not those inside atomo", function()
    local path, remove = spawn.file [[
      local atomo = require "atomo"
      local function wrong() local r = atomo.randn(2, 2):matmul(atomo.randn(3, 3)) return r end
      local function hook() error "mine" end
      if arg[1] == "call" then local r = wrong() return r end
      if arg[1] == "fault" then local r = require("atomo.core.blocks").run(nil) return r end
      local function deep(n) return 1 + deep(n + 1) end
      if arg[1] == "deep" then return 1 + deep(1) end
      local net = atomo.nn.Sequential {atomo.nn.Flatten(), atomo.nn.Linear(3072, 10)}
      atomo.train {model = net, quiet = true, epochs = 1, on_step = function() hook() end,
        data = atomo.data.loader {set = atomo.data.synthetic {train = 4, test = 4}.train, batch = 2},
        optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1}}
    ]]
    local function trace_of(mode, before)
      local out, code = spawn.run(("%s %s %s %s"):format(before or "", spawn.exe, path, mode))
      assert.equal(1, code)
      return out:match "^(.-)\n" or "", out:match "\nstack traceback:\n(.*)<?" or out
    end
    local first, trace = trace_of "call"
    has(first, path .. ":2: matmul: [2,2] x [3,3] do not fit")
    assert.truthy(trace:find("^\t[^\n]*:2: in function 'wrong'\n\t[^\n]*:4: in main chunk\n"), trace)
    assert.is_nil(trace:find("lua/atomo/", 1, true), trace)

    first, trace = trace_of "hook"
    has(first, path .. ":3: mine")
    has(trace, "in function 'hook'")
    assert.truthy(trace:find("step'\n\t... %d+ calls inside atomo\n\t[^\n]*:%d+: in main chunk"), trace)

    has(select(2, trace_of("hook", "env ATOMO_TRACEBACK=full")), "atomo/train/init.lua:")
    has(select(2, trace_of "fault"), "atomo/core/blocks.lua:") -- raised by Lua in the library

    trace = select(2, trace_of "deep")
    assert.truthy(trace:find "\n\t... %d+ calls\n", trace)
    has(trace, ":7: in main chunk")
    assert(select(2, trace:gsub("\n", "")) < 30, trace)
    remove()
  end)

  spec("need not be text", function()
    for object, want in pairs {
      ["{}"] = "a table", ["nil"] = "a nil", ["{message='m1'}"] = "m1", ["42"] = "42", ["print"] = "a function",
      ["setmetatable({}, {__tostring = function() return 'own' end})"] = "own",
    } do
      local out, code = spawn.host {"-e", ("error(%s)"):format(object)}
      has(out, want)
      assert.equal(1, code)
    end
  end)

  spec("of syntax name file and line; a missing script is named", function()
    local path, remove = spawn.file "x = 1\nx = = 2"
    local out, code = spawn.host {path}
    has(out, path .. ":2: unexpected symbol near '='")
    assert.equal(1, code)
    remove()
    out, code = spawn.host {"no_such_script.lua"}
    has(out, "no_such_script.lua")
    assert.equal(1, code)
  end)

  spec("os.exit gives its code", function()
    for text, want in pairs {[""] = 0, ["0"] = 0, ["3"] = 3, ["true"] = 0, ["false"] = 1, ["256"] = 1} do
      local _, code = spawn.host {"-e", ("io.write 'x' os.exit(%s)"):format(text)}
      assert.equal(want, code)
    end
  end)

  -- LuaJIT raises an error in a finalizer in whatever code runs, past its pcall or with a fault where that is compiled.
  spec("in a finalizer is printed, stops nothing, and gives exit code 1", function()
    local path, remove = spawn.file [[
local ffi = require "ffi"
local mode, fail = arg[1], function() error "of a finalizer" end
ffi.cdef "typedef struct { int i; } owned;"
local owned = ffi.metatype("owned", {__gc = fail})
local make = {
  proxy = function() local p = newproxy(true) getmetatable(p).__gc = fail return p end,
  gc = function() return ffi.gc(ffi.new "int[1]", fail) end,
  metatype = function() return owned(1) end,
}
if arg[2] == "now" then
  local ok, text = pcall(function()
    local sum = 0
    for i = 1, 400000 do
      if i % 1000 == 0 then make[mode]() end
      local t = {i}
      sum = sum + t[1]
    end
    return sum
  end)
  print(ok, text)
else
  kept = make[mode]()
  print "the end"
end
]]
    for _, mode in ipairs {"proxy", "gc", "metatype"} do
      for when, want in pairs {now = "true\t80000200000\n", later = "the end\n"} do
        local out, code = spawn.run(("%s %s %s %s"):format(spawn.exe, path, mode, when), {timeout = 20})
        has(out, want)
        has(out, "atomo-lua: error in a finalizer: " .. path .. ":2: of a finalizer\n")
        assert(select(2, out:gsub("error in a finalizer", "")) <= 10, out)
        assert.equal(1, code)
      end
    end
    remove()
  end)

  spec("os.exit(code, true) runs the finalizers first, once, unless in one", function()
    local path, remove = spawn.file [[
kept = newproxy(true)
getmetatable(kept).__gc = function()
  print "finalizer"
  if arg[1] == "again" then os.exit(4, true) end
end
if arg[1] == "coroutine" then coroutine.wrap(function() pcall(os.exit, 3, true) end)() end
if arg[1] == "finalizer" then
  local dead = newproxy(true)
  getmetatable(dead).__gc = function() os.exit(6, true) end
  dead = nil
  collectgarbage()
end
os.exit(true, arg[1] ~= "open")
]]
    for mode, want in pairs {
      plain = {"finalizer\n", 0}, coroutine = {"finalizer\n", 3}, again = {"finalizer\n", 4}, open = {"", 0},
      finalizer = {"", 6},
    } do
      local out, code = spawn.run(("%s %s %s"):format(spawn.exe, path, mode), {timeout = 20})
      assert.same(want, {out, code}, mode)
    end
    remove()
  end)

  -- LuaJIT 2.1 of 2022 never leaves such a loop in a finalizer, if it is compiled and its table is of another kind.
  spec("a finalizer may iterate with pairs over what it likes, once compiled or not", function()
    local path, remove = spawn.file [[
local function count(t)
  local n = 0
  for _ in pairs(t) do n = n + 1 end
  return n
end
for _ = 1, 500 do count {a = 1, b = 2, 3} end
kept = newproxy(true)
getmetatable(kept).__gc = function() print(count {a = 1, b = 2, 3}, count {"x"}, count {a = true}, count {}) end
]]
    local out, code = spawn.run(spawn.exe .. " " .. path, {timeout = 20})
    remove()
    assert.equal("3\t1\t1\t0\n", out)
    assert.equal(0, code)
  end)
end)

describe("host prompt", function()
  spec("prints expressions, continues statements, survives errors", function()
    local out, code = spawn.host("-i", {stdin =
      "1 + 1\n= 3, nil\nfor i = 1, 2 do\nprint('i', i)\nend\ny = 5\ny\nerror 'oops'\nz z\n'after'\n"})
    assert.equal(0, code)
    has(out, "2\n3\tnil\ni\t1\ni\t2\n5\n")
    has(out, "oops")
    has(out, "stdin:1:")
    has(out, "after\n")
  end)
end)

describe("host modules", function()
  spec("are found from any folder, through a link too", function()
    local out = spawn.run(("sh -c 'cd / && %s -e \"print(require(%s).ones(2):sum():item())\"'"):format(
      spawn.exe, "[[atomo]]"))
    assert.equal("2\n", out)
    local link = os.tmpname()
    os.remove(link)
    os.execute(("ln -s %s %s"):format(spawn.quote(spawn.exe), link))
    out = spawn.run(link .. " -e 'print(type(require \"atomo\"))'")
    os.remove(link)
    assert.equal("table\n", out)
  end)

  spec("math.random is the runtime's, and reproducible", function()
    local draw = "print(math.random(), math.random(6), math.random(-3, 3))"
    local a = spawn.host {"-e", "math.randomseed(7)" .. draw}
    local b = spawn.host {"-l", "atomo", "-e", "require 'atomo'.manual_seed(7)" .. draw}
    assert.equal(a, b)
    assert.not_equal(a, (spawn.host {"-e", "math.randomseed(8)" .. draw}))
  end)
end)

describe("math.random", function()
  it("stays in its range, and reaches all of it", function()
    local seen = {}
    for _ = 1, 2000 do
      local r, k = math.random(), math.random(-1, 4)
      assert(r >= 0 and r < 1)
      assert(k >= -1 and k <= 4 and k % 1 == 0)
      seen[k] = true
    end
    for k = -1, 4 do assert(seen[k]) end
  end)

  it("refuses an empty interval and seeds that are no numbers", function()
    if not spawn.exe then return pending "not run by atomo-lua" end
    assert.error_matches(function() math.random(0) end, "empty")
    assert.error_matches(function() math.random(3, 1) end, "empty")
    assert.error_matches(function() math.randomseed "x" end, "must be a number")
    math.randomseed(-1.5)
    local a = math.random()
    math.randomseed(-1.5)
    assert.equal(a, math.random())
  end)
end)

describe("atomo-lua test", function()
  local folder

  --- Runs a command in a folder that holds a tests folder: a module in support, and two specs in spec/room.
  local function run(command)
    local spec_text = "it('two', function() assert.equal(2, require 'support.two') end)\n"
    folder = os.tmpname()
    os.remove(folder)
    os.execute(("mkdir -p %s/tests/support %s/tests/spec/room"):format(folder, folder))
    for name, text in pairs {["support/two"] = "return 2\n", ["spec/room/a_spec"] = spec_text,
      ["spec/room/baselines_b_spec"] = spec_text} do
      local file = assert(io.open(("%s/tests/%s.lua"):format(folder, name), "w"))
      file:write(text)
      file:close()
    end
    return spawn.run(("sh -c %s"):format(spawn.quote(("cd %s && %s"):format(folder, command:format(spawn.exe)))))
  end
  after_each(function() if folder then os.execute("rm -r " .. folder) end end)

  spec("walks folders, with tests/ on the module path", function()
    has(run "%s test tests/spec", "2 passed, 0 failed\n")
  end)

  spec("finds tests/support from a folder in tests", function()
    has(run "cd tests/spec && %s test room", "2 passed, 0 failed\n")
  end)

  spec("finds a spec that is named without its folder, and prints the path", function()
    local out = run "%s test tests/spec/a_spec.lua tests/spec/peers_b_spec.lua"
    has(out, "atomo-lua test: tests/spec/a_spec.lua is now tests/spec/room/a_spec.lua\n")
    has(out, "atomo-lua test: tests/spec/peers_b_spec.lua is now tests/spec/room/baselines_b_spec.lua\n")
    has(out, "2 passed, 0 failed\n")
  end)

  spec("reports that no folder has such a spec", function()
    local out, code = run "%s test tests/spec/b_spec.lua"
    assert.equal(1, code)
    has(out, "tests/spec/b_spec.lua")
  end)
end)
