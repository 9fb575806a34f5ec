--- Checks README and the pages of docs/ against the tree: languages of code blocks, commands, links, file names,
-- options and names of the program. Faults are returned as "page:line: what".
local shell = require "support.shell"
local spawn = require "support.spawn"
local markdown = require "support.markdown"
local command_lines = require "support.command_lines"
local names = require "support.documented_names"
local programs = command_lines.programs

local M = {programs = programs, markdown = markdown}

-- lua: all blocks of a page are run as one program. sh: commands are checked. text: contents of a file, or output.
-- python: run by bindings/python/tests/test_docs.py.
local languages = {lua = true, sh = true, text = true, python = true}

-- Names of readers' own files, which do not exist in the tree.
local of_the_reader = {}
for name in ("my.lua my_data.lua late.lua script.lua my_model.lua kernel_svd.lua compare.svg x.c"):gmatch "%S+" do
  of_the_reader[name] = true
end

-- Options of other programs that documents mention.
local of_others = {}
for option in ("--shm-size --prefix --preset --fresh --build --only-matching --mpi --kill-on-bad-exit --nodes " ..
  "--ntasks-per-node --cpus-per-task --time --signal --lua --cflags --libs --variable --oversubscribe --mca " ..
  "--install"):gmatch "%S+" do
  of_others[option] = true
end

local function read(path) return assert(shell.read(path), path) end

--- Returns the paths of README and of the pages of docs/, relative to the root.
function M.pages()
  local list = {}
  for path in pairs(programs.files()) do
    local page = path:find "^[^.].*%.md$" and path ~= "CHANGELOG.md"
    if page then list[#list + 1] = path end
  end
  table.sort(list)
  return list
end

local function check_blocks(page, fault, excused)
  for _, line in ipairs(page.indented) do fault(line, "indented code: put it in a fence that names its language") end
  if page.open then fault(page.open.line, "a fence is not closed") end
  for _, block in ipairs(page.blocks) do
    if not languages[block.language] then
      fault(block.line, ("a block of language '%s', expected lua, python, sh or text"):format(block.language))
    elseif block.marks ~= "" and block.marks ~= "norun" then
      fault(block.line, ("a block is marked '%s', expected norun or nothing"):format(block.marks))
    elseif block.marks == "norun" and not excused(block) then
      fault(block.line, "norun without a reason in tests/spec/docs/docs_spec.lua")
    end
  end
end

local function check_commands(page, fault)
  for _, block in ipairs(page.blocks) do
    if block.language == "sh" then
      for _, command in ipairs(markdown.commands(block)) do
        command_lines.check(command.words, function(text) fault(command.line, text) end)
      end
    end
  end
end

local anchors_of = {}

local function check_links(page, path, fault)
  local folder = path:match "^(.*/)" or ""
  markdown.links(page, function(line, target)
    if target:find "^https?://" then return end
    local file, anchor = target:match "^([^#]*)#?(.*)$"
    local there = file == "" and path or (folder .. file):gsub("[^/]+/%.%./", "")
    if there ~= path and not programs.files()[there] then
      return fault(line, ("%s is not in the tree"):format(there))
    end
    if anchor == "" then return end
    local anchors = there == path and page.anchors or anchors_of[there]
    if not anchors then
      anchors = markdown.parse(read(programs.root .. "/" .. there)).anchors
      anchors_of[there] = anchors
    end
    if not anchors[anchor] then
      fault(line, ("%s has no heading #%s"):format(there, anchor))
    end
  end)
end

local endings = {lua = true, c = true, h = true, md = true, sh = true, svg = true, py = true, supp = true}
local folders = {runtime = true, bindings = true, scripts = true, models = true, tests = true, docs = true,
  cmake = true, examples = true}

--- Does a file or folder have this name, or a path that ends in it (NAME and * match anything)?
local function in_tree(name)
  local pattern = name:gsub("/$", ""):gsub("%p", "%%%0"):gsub("NAME", "[^/]+"):gsub("%%%*", "[^/]*")
  for path in pairs(programs.files()) do
    path = "/" .. path
    if path:find("/" .. pattern .. "$") or path:find("/" .. pattern .. "/") then return true end
  end
  return false
end

local function check_file(word, fault)
  local top = word:match "^%.?/?([%w_]+)/"
  local ending = word:match "^[%w_][%w_%-%./*]*%.(%l+)$"
  if word:find "^build/" or of_the_reader[word] or not word:find "^[%w_%./*%-]+$" then return end
  if (top and folders[top]) or endings[ending] then
    if not in_tree(word) then fault(("%s is not in the tree"):format(word)) end
  end
end

local function check_options(text, fault)
  for before, option in (" " .. text):gmatch "([^%w%-])(%-%-[%a][%w%-]+)" do
    local known = of_others[option] or before == "/"
    for _, program in ipairs(programs.all()) do known = known or programs.has_option(program, option) end
    if not known then fault(("no program's --help knows %s"):format(option)) end
  end
end

local function check_spans(page, fault)
  markdown.spans(page, function(line, span)
    local function here_fault(text) fault(line, text) end
    for word in span:gmatch "[^%s,;()\"']+" do
      for part in (word:gsub("{.*", "*") .. ":"):gmatch "([^:]+):" do check_file(part, here_fault) end
    end
    if span:find "^sh [%w/_]+%.sh" or span:find "^build/atomo%-lua %S" or span:find "^mpirun %S" then
      for _, command in ipairs(markdown.commands {line = line, lines = {(span:gsub("\n", " "))}}) do
        command_lines.check(command.words, here_fault)
      end
    end
    check_options(span, here_fault)
    names.check(span, here_fault)
  end)
end

--- All faults of a page but those of its Lua. excused(block): whether this block need not run.
---@param path string   from the root, for messages and relative links
---@param text string
function M.faults(path, text, excused)
  local faults = {}
  local function fault(line, what) faults[#faults + 1] = ("%s:%d: %s"):format(path, line, what) end
  local page = markdown.parse(text)
  check_blocks(page, fault, excused or function() return false end)
  check_commands(page, fault)
  check_links(page, path, fault)
  check_spans(page, fault)
  return faults
end

--- Returns the Lua blocks of a page as one program with the page's line numbers; nil if it has none.
function M.program(text)
  local page, lines, count = markdown.parse(text), {}, 0
  for _, block in ipairs(page.blocks) do
    if block.language == "lua" and block.marks ~= "norun" then
      for _ = count + 1, block.line do lines[#lines + 1] = "" end
      for _, line in ipairs(block.lines) do lines[#lines + 1] = line end
      count = #lines
    end
  end
  return count > 0 and table.concat(lines, "\n") or nil
end

-- The program that runs a page, without starting processes, with small data sets, and files in the current folder.
local driver = [[
os.execute, io.popen = nil, nil
local atomo = require "atomo"
local synthetic = atomo.data.synthetic
function atomo.data.synthetic(o)
  o = o or {}
  return synthetic {train = math.min(o.train or 48, 48), test = math.min(o.test or 16, 16), seed = o.seed}
end
local open = atomo.data.open
function atomo.data.open(path, options) return path and open(path, options) or atomo.data.synthetic() end
assert(loadstring(%s, %s))()
]]

--- Runs the Lua of a page in a separate process and in a new folder with `files` (name -> contents). Returns nil, or
-- the error with the page's line numbers.
function M.run(path, text, files)
  local program = M.program(text)
  if not program then return nil end
  local folder = os.tmpname()
  os.remove(folder)
  os.execute("mkdir " .. spawn.quote(folder))
  for name, content in pairs(files or {}) do
    local file = assert(io.open(folder .. "/" .. name, "wb"))
    file:write(content)
    file:close()
  end
  local file = assert(io.open(folder .. "/page_driver.lua", "wb"))
  file:write(driver:format(("%q"):format(program), ("%q"):format("@" .. path)))
  file:close()
  local command = ("cd %s && exec %s page_driver.lua"):format(spawn.quote(folder), spawn.quote(spawn.exe))
  local out, code = spawn.run("sh -c " .. spawn.quote(command), {timeout = 60})
  os.execute("rm -r " .. spawn.quote(folder))
  if code ~= 0 then return ("exit code %d: %s"):format(code, out) end
end

M.read = read

return M
