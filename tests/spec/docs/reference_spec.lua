-- Annotations in the source: every public name has a description, all arguments, results and an example that runs.
-- The reference and the manual pages are made of them.
-- test: slow
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)
local atomo = require "atomo"
local examples = require "atomo.tools.reference.examples"
local header = require "atomo.tools.reference.header"
local html = require "atomo.tools.reference.html"
local names = require "atomo.tools.reference.names"
local root = require "support.root"
local shell = require "support.shell"
local source = require "atomo.tools.reference.source"

--- Returns whether the last statement of a Lua function returns a value.
local function returns_value(fn)
  local info = debug.getinfo(fn, "S")
  local path = info.source:match "^@(.*)"
  if not path or path:find "/autograd/init.lua$" then return false end
  local lines, n = {}, 0
  for line in io.lines(path) do
    n = n + 1
    if n >= info.linedefined and n <= info.lastlinedefined then lines[#lines + 1] = line end
  end
  local last = #lines > 1 and lines[#lines - 1] or lines[1]
  return last:find(#lines > 1 and "^%s*return %S" or "%f[%w]return %f[^%s]") ~= nil and not last:find "return end"
end

--- Returns what an entry lacks, as a list of texts.
local function gaps(entry)
  local list, described = {}, {}
  for _, p in ipairs(entry.params) do described[p.name:gsub("%?$", "")] = p.type ~= "" end
  if #entry.text == 0 then list[#list + 1] = "a description" end
  if #entry.usage == 0 then list[#list + 1] = "---@usage" end
  for _, name in ipairs(entry.arguments or {}) do
    if name ~= "self" and not described[name] then list[#list + 1] = "---@param " .. name end
  end
  local value = entry.value
  if type(value) == "function" and #entry.returns == 0 and returns_value(value) then list[#list + 1] = "---@return" end
  return list
end

local function with_folder(fn)
  local folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir " .. folder)
  local ok, why = pcall(fn, folder)
  os.execute("rm -r " .. folder)
  if not ok then error(why, 0) end
end

describe("the annotations in the source", function()
  if os.getenv "OMPI_COMM_WORLD_SIZE" then return pending "not under mpirun" end
  local pages = names.pages(atomo)

  it("describe every public name, its arguments and its result", function()
    local faults, count = {}, 0
    for _, page in ipairs(pages) do
      for _, entry in ipairs(page.entries) do
        count = count + 1
        local lacks = gaps(entry)
        if #lacks > 0 then
          faults[#faults + 1] = ("%s:%s: %s lacks %s"):format(entry.path or "?", entry.line or 0, entry.name,
            table.concat(lacks, ", "))
        end
      end
    end
    assert.same({}, faults)
    assert(count > 350, count)
  end)

  it("find what is missing", function()
    local path, remove = spawn.file("local M = {}\n--- Adds.\n---@param a number the first\nfunction M.add(a, b)\n" ..
      "  return a + b\nend\nreturn M\n")
    local add = dofile(path).add
    local entry = source.of_function(add)
    entry.value = add
    assert.same({"---@usage", "---@param b", "---@return"}, gaps(entry))
    remove()
    assert.same("the first", entry.params[1].text)
  end)

  it("describe types with blanks", function()
    local entry = source.parse {"@param o {a: number?, b: fun(x: any): any}? options", " of it", "@return T[] list",
      "@usage f()", "text"}
    assert.same({name = "o", type = "{a: number?, b: fun(x: any): any}?", text = "options of it"}, entry.params[1])
    assert.same({{type = "T[]", text = "list"}}, entry.returns)
    assert.same({"f()"}, entry.usage)
  end)

  spec("have examples that run", function()
    with_folder(function(folder)
      local path, remove = spawn.file [[
        local examples = require "atomo.tools.reference.examples"
        for _, page in ipairs(require("atomo.tools.reference.names").pages(require "atomo")) do
          for _, entry in ipairs(page.entries) do
            local why = examples.run(page, entry)
            if why then print(why) end
          end
        end
        print "done"]]
      local out, code = spawn.run(("sh -c %s"):format(spawn.quote(("cd %s && exec %s %s"):format(folder,
        spawn.quote(spawn.exe), path))), {timeout = 60})
      remove()
      assert.same({"done\n", 0}, {out, code})
    end)
  end)

  it("an example that says another value is a fault", function()
    assert.matches("gives 2, its text says 3", examples.run({}, {name = "f", usage = {"1 + 1 --> 3"}}))
    assert.is_nil(examples.run({}, {name = "f", usage = {"1 + 1 --> 2"}}))
  end)

  it("make a page for each module", function()
    with_folder(function(folder)
      local files = require "atomo.tools.reference"(atomo, folder)
      assert(#files >= 11)
      for _, file in ipairs(files) do assert(shell.read(("%s/%s.md"):format(folder, file)), file) end
      local text = shell.read(folder .. "/functional.md")
      assert.truthy(text:find("### `F.conv2d(x, w, b, opts)`", 1, true))
      assert.truthy(text:find("- `b` `atomo.Tensor?`", 1, true))
    end)
  end)
end)

describe("the reference of the C functions", function()
  if os.getenv "OMPI_COMM_WORLD_SIZE" then return pending "not under mpirun" end
  local headers = {root .. "runtime/atomo_codec.h", root .. "runtime/atomo.h"}

  it("has an entry with a comment and the declaration of each function that the codec library exports", function()
    local blocks, faults, count = {}, {}, 0
    for _, path in ipairs(headers) do
      for _, section in ipairs(header.read(path).sections) do
        for _, block in ipairs(section.blocks) do
          for _, name in ipairs(block.names) do blocks[name] = block end
        end
      end
    end
    for name in shell.read(root .. "cmake/atomo-codec.map"):gmatch "%f[%w](atomo_[%w_]+);" do
      local block = blocks[name]
      count = count + 1
      local described = block and (#block.text > 0 or block.code:find(name .. "%b();[^\n]*/%*"))
      if not described then faults[#faults + 1] = name end
      if block then assert.truthy(block.code:find(name .. "(", 1, true), name) end
    end
    assert.same({}, faults)
    assert(count > 50, count)
  end)

  it("keeps names, comments, statuses and fields, without what only the compiler needs", function()
    local path, remove = spawn.file('/* x.h - a header.\n *\n *     code();\n */\n#ifndef X_H\n' ..
      '/* ---- things ---- */\n#define S(X) \\\n    X(OK, 0, "no error") \\\n/* Adds\n * one. */\n' ..
      'ATOMO_API int x_add(int n); /* n >= 0 */\n\ntypedef struct x_pair {\n    int a; /* first */\n} x_pair;\n' ..
      '#endif\n')
    local parsed = header.read(path)
    remove()
    assert.same({"x.h - a header.", "", "    code();", ""}, parsed.intro)
    assert.equal(1, #parsed.sections)
    assert.same({{text = {}, names = {}, code = "ATOMO_OK = 0, /* no error */"}, {text = {"Adds", "one."},
      names = {"x_add", "x_pair"}, code = "int x_add(int n); /* n >= 0 */\ntypedef struct x_pair {\n" ..
      "    int a; /* first */\n} x_pair;"}}, parsed.sections[1].blocks)
  end)

  local cmark = spawn.have "cmark" and "cmark" or spawn.have "pandoc" and "pandoc"
  if not cmark then return pending "the links: neither cmark nor pandoc is installed" end

  it("and of Lua have links of names, and each leads to an entry", function()
    with_folder(function(folder)
      local files, places = require "atomo.tools.reference"(atomo, folder, headers)
      html(folder, files, cmark, places)
      local text, anchors, count, faults = {}, {}, 0, {}
      for _, file in ipairs(files) do
        text[file] = shell.read(("%s/%s.html"):format(folder, file))
        anchors[file] = {}
        for id in text[file]:gmatch 'id="([^"]*)"' do anchors[file][id] = true end
      end
      for _, file in ipairs(files) do
        for page, anchor in text[file]:gmatch 'href="([%w_]+)%.html#?([^"]*)"' do
          count = count + 1
          local there = anchors[page] and (anchor == "" or anchors[page][anchor])
          if not there then faults[#faults + 1] = ("%s: %s#%s"):format(file, page, anchor) end
        end
      end
      assert.same({}, faults)
      assert(count > 300, count)
      for name, place in pairs(places) do
        local page, anchor = place:match "^([^#]*)#?(.*)$"
        assert(anchor == "" or anchors[page][anchor], name .. " has no anchor")
      end
      assert.truthy(text.atomo_h:find('<a href="atomo_codec_h.html#atomo_tensor_wrap">', 1, true) or
        text.atomo_codec_h:find('<a href="atomo_codec_h.html#atomo_codec_finish">atomo_codec_finish</a>', 1, true))
      assert.truthy(text.functional:find('<a href="tensor.html">atomo.Tensor</a>', 1, true))
    end)
  end)
end)
