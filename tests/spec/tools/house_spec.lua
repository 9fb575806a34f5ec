-- scripts/check_house.lua finds planted faults: uses of higher layers, circles, names of missing files, help texts that
-- do not say what they turn off. In a tree without faults it finds none.
local scripts = require "support.root" .. "scripts/"
package.path = scripts .. "?.lua;" .. package.path
local layers, references, taste = require "house.layers", require "house.references", require "house.taste"
local errors, version = require "house.errors", require "house.version"
local spawn = require "support.spawn"

local function sorted(tree)
  local paths = {}
  for path in pairs(tree) do paths[#paths + 1] = path end
  table.sort(paths)
  return paths
end

--- The faults of a small tree: clean files, and the planted ones.
local function faults_of(planted)
  local tree = {
    ["README.md"] = "# Top\nSee [the guide](docs/guide.md#the-log) and `runtime/core/memory.c`.\n## Two words\n" ..
      "[here](#two-words)\n",
    ["docs/guide.md"] = "# Guide\n## The log\nBack to [the top](../README.md).\n",
    ["runtime/atomo.h"] = "int atomo_new(void);\nint atomo_run(void);\n",
    ["runtime/core/core.h"] = '#include "atomo.h"\nvoid *atomo__alloc(int n);\n',
    ["runtime/core/memory.c"] = '/* memory.c - memory (core.h). */\n#include "core/core.h"\n' ..
      "void *atomo__alloc(int n)\n{\n    return 0;\n}\n",
    ["runtime/comm/comm.c"] = '#include "core/core.h"\nint atomo_new(void)\n{\n    return !atomo__alloc(1);\n}\n',
    ["runtime/exchange/engine.c"] = "struct atomo_engine {\n    int n;\n};\n" ..
      "const struct atomo_engine atomo_engine_one = {1};\nint atomo_run(void)\n{\n    return atomo_new();\n}\n",
    ["bindings/atomo/ffi.lua"] = 'return require("atomo_cdef")\n',
    ["bindings/atomo/core/log.lua"] = '--- A log.\nlocal f = require "atomo.ffi"\nreturn f\n',
    ["bindings/atomo/train/init.lua"] = 'for _, part in ipairs {"step"} do require("atomo.train." .. part) end\n',
    ["bindings/atomo/train/step.lua"] = 'return require "atomo.core.log"\n',
    ["bindings/atomo/init.lua"] = 'return {train = "atomo.train"}\n',
    ["scripts/run.lua"] = 'cli.parse {options = {{"overlap", "flag", true, "turn off overlap"}}}\n',
  }
  for path, text in pairs(planted or {}) do tree[path] = text end
  local paths, list = sorted(tree), {}
  local function fault(text) list[#list + 1] = text end
  for _, graph in ipairs {layers.of_c(tree, paths), layers.of_lua(tree, paths)} do layers.check(graph, fault) end
  references.check(tree, paths, fault)
  taste.check_help(tree, paths, fault)
  version.check(tree, paths, fault)
  errors.check(tree, paths, fault)
  return list
end

--- That one fault is found, and says `part`.
local function finds(part, planted)
  local list = faults_of(planted)
  assert.equal(1, #list, table.concat(list, "\n"))
  assert.truthy(list[1]:find(part, 1, true), list[1])
end

describe("check_house", function()
  it("finds nothing in a tree without faults", function() assert.same({}, faults_of()) end)

  it("finds an include of a higher layer, and a circle", function()
    finds('runtime/core/child.c:2: looks up to runtime/exchange/engine.h: includes "exchange/engine.h"',
      {["runtime/core/child.c"] = '#include "core/core.h"\n#include "exchange/engine.h"\n',
        ["runtime/exchange/engine.h"] = "\n"})
    finds("a circle: runtime/comm/a.h, runtime/comm/b.h",
      {["runtime/comm/a.h"] = '#include "comm/b.h"\n', ["runtime/comm/b.h"] = '#include "comm/a.h"\n'})
  end)

  it("finds a call that looks up without an include, and a name of an object", function()
    finds("runtime/core/child.c:3: looks up to runtime/exchange/engine.c: uses atomo_run",
      {["runtime/core/child.c"] = "int atomo_child(void)\n{\n    return atomo_run();\n}\n"})
    finds("runtime/comm/world.c:1: looks up to runtime/exchange/engine.c: uses atomo_engine_one",
      {["runtime/comm/world.c"] = "extern const struct atomo_engine atomo_engine_one;\n"})
  end)

  it("finds a use of a folder that is not part of the codec library, though it is lower", function()
    finds("runtime/codec/plan.c:1: leaves the codec library for runtime/io/file.h: includes \"io/file.h\"",
      {["runtime/codec/plan.c"] = '#include "io/file.h"\n', ["runtime/io/file.h"] = "\n"})
    finds("runtime/atoms/dct.c:3: leaves the codec library for runtime/comm/comm.c: uses atomo_new",
      {["runtime/atoms/dct.c"] = "int atomo_dct(void)\n{\n    return atomo_new();\n}\n"})
  end)

  it("ignores calls in comments, strings and the public header", function()
    assert.same({}, faults_of {["runtime/core/child.c"] = '/* atomo_run() */ // atomo_run()\n' ..
      'const char *atomo_child = "\\" atomo_run()";\n'})
  end)

  it("finds a require that looks up, at the top of a file, in a function, put together", function()
    local up = "bindings/atomo/core/json.lua:1: looks up to bindings/atomo/train/step.lua"
    finds(up, {["bindings/atomo/core/json.lua"] = 'local s = require "atomo.train.step"\n'})
    finds(up, {["bindings/atomo/core/json.lua"] = "return function() return require('atomo.train.step') end\n"})
    finds(up, {["bindings/atomo/core/json.lua"] = 'return require(x and "atomo.train.step" or "atomo.core.log")\n'})
    finds(up, {["bindings/atomo/core/json.lua"] = 'return require("atomo.train." .. name)\n'})
    finds("bindings/atomo/core/json.lua:1: looks up to bindings/atomo/init.lua",
      {["bindings/atomo/core/json.lua"] = 'return require "atomo"\n'})
  end)

  it("finds circles of requires, lazy ones too, and a module that is not there", function()
    finds("a circle: bindings/atomo/train/a.lua, bindings/atomo/train/b.lua",
      {["bindings/atomo/train/a.lua"] = 'local b = require "atomo.train.b"\n',
        ["bindings/atomo/train/b.lua"] = 'return function() return require("atomo.train.a") end\n'})
    finds("bindings/atomo/train/a.lua:2: no module atomo.train.gone",
      {["bindings/atomo/train/a.lua"] = '\nreturn require "atomo.train.gone"\n'})
  end)

  it("finds a file that lies in no layer", function()
    finds("runtime/attic/a.c: lies in no layer", {["runtime/attic/a.c"] = '#include "core/core.h"\n'})
  end)

  it("finds names of files, documents and headings that lead nowhere", function()
    local gone = "do" .. "cs/gone.md"
    finds("docs/more.md:1: speaks of " .. gone, {["docs/more.md"] = "As `" .. gone .. "` says.\n"})
    finds("docs/more.md:1: links to gone.md, which is not there", {["docs/more.md"] = "[more](gone.md)\n"})
    finds("docs/more.md:2: links to guide.md#no-such, but no heading of docs/guide.md is called so",
      {["docs/more.md"] = "[log](guide.md#the-log)\n[more](guide.md#no-such)\n"})
    finds("runtime/core/child.c:2: speaks of entries.c, and no file is called so",
      {["runtime/core/child.c"] = "/* child.c - as\n * entries.c does it. */\n"})
    finds("runtime/core/child.c:1: speaks of comm/sums.c", {["runtime/core/child.c"] = "/* as comm/sums.c. */\n"})
    finds("core/json.lua:1: speaks of step2.lua", {["bindings/atomo/core/json.lua"] = "-- as step2.lua\n"})
    finds("tests/spec/a_spec.lua:1: speaks of runtime/gone.c",
      {["tests/spec/a_spec.lua"] = "-- of runtime" .. "/gone.c\n"})
    finds("a document that is not there", {["runtime/core/child.c"] = "/* [DESIGN" .. " 6.1] */\n"})
    finds("train/deep/a.lua:2: speaks of core/step.lua",
      {["bindings/atomo/train/deep/a.lua"] = "-- as train/step.lua, core/log.lua\n-- core/step.lua\n"})
    assert.same({}, faults_of {["runtime/core/child.c"] = "/* NAME.c, test_*.c, v[0..c), <mpi.h>, mpi.h */\n",
      ["docs/more.md"] = "`my.lua`, `build/x.c`, `runtime/atoms/NAME.c`, [out](https://example.org/a.md)\n"})
  end)

  it('finds help texts of --no- flags without "turn off", and empty choices', function()
    finds('the help of --no-augment does not begin with "turn off": "crop"',
      {["scripts/a.lua"] = 'cli.parse {options = {{"augment", "flag", true, "crop"}}}\n'})
    finds("scripts/a.lua:2: one of the choices is empty",
      {["scripts/a.lua"] = '{"conv", "choice", "", "engine",\n  choices = {"", "auto"}}\n'})
  end)

  it("finds an error text that would print a tensor", function()
    finds("bindings/atomo/core/a.lua:2: raise(... tostring(v) ...), expected brief(v)",
      {["bindings/atomo/core/a.lua"] = "local text = tostring(v)\nraise(('%s'):format(\n  tostring(v)))\n"})
    finds("bindings/atomo/core/a.lua:1: error(", {["bindings/atomo/core/a.lua"] = "error(who .. tostring(v), 0)\n"})
  end)

  it("finds versions that differ from that of CMakeLists.txt, also in names of files", function()
    local cmake = "project(atomo VERSION 1.2.3 LANGUAGES C)\n"
    finds("CITATION.cff: version 1.2.2, project() in CMakeLists.txt has 1.2.3",
      {["CMakeLists.txt"] = cmake, ["CITATION.cff"] = "a: b\nversion: 1.2.2\n"})
    finds("a-1.2.2-1.rockspec (its name): version 1.2.2, project() in CMakeLists.txt has 1.2.3",
      {["CMakeLists.txt"] = cmake, ["packaging/a-1.2.2-1.rockspec"] = 'x = 1\nversion = "1.2.3-1"\n'})
    finds("__init__.py: version is not stated, project() in CMakeLists.txt has 1.2.3",
      {["CMakeLists.txt"] = cmake, ["bindings/python/atomo/__init__.py"] = "import os\n"})
    finds("CMakeLists.txt: project() states no VERSION", {["CMakeLists.txt"] = "project(atomo LANGUAGES C)\n"})
  end)

  it("lists lines of prose over 120 characters, not bytes", function()
    local said = {}
    local lines = {("σ"):rep(120), ("x"):rep(121), "```text", ("y"):rep(130), "```"}
    local tree = {["README.md"] = table.concat(lines, "\n")}
    taste.list(tree, sorted(tree), false, function(text) said[#said + 1] = text end)
    assert.same({"wide: README.md has 1 lines of prose over 120 columns"}, said)
  end)

  it("ends with the number of faults, and exit code 1 where there are any", function()
    if not spawn.possible() then return pending "runs the program" end
    local root = os.tmpname()
    os.remove(root)
    assert.equal(0, os.execute(("mkdir -p %s/runtime/core %s/runtime/comm"):format(root, root)))
    local function put(path, text)
      local file = assert(io.open(root .. "/" .. path, "w"))
      file:write(text)
      file:close()
    end
    local command = ("%scheck_house.lua --root %s"):format(scripts, root)
    put("runtime/comm/comm.h", ("\n"):rep(251))
    put("runtime/core/core.h", "\n")
    local out, code = spawn.host(command)
    assert.equal(0, code, out)
    assert.matches("long: runtime/comm/comm.h has 251 lines %(250%)\n", out)
    assert.matches("runtime: 2 files, 0 arrows, 0 up, 0 circles\n.*\n0 faults\n$", out)
    put("runtime/core/core.h", '#include "comm/comm.h"\n')
    out, code = spawn.host(command)
    assert.equal(1, code, out)
    assert.matches("fault: runtime/core/core.h:1: looks up to runtime/comm/comm.h", out)
    assert.matches("\n1 faults\n$", out)
    os.execute("rm -r " .. root)
  end)
end)
