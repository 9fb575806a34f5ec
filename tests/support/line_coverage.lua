--- Measures coverage of one test unit at a time: which lines of C (by gcov) and which functions of Lua it runs.
local shell = require "support.shell"
local test_units = require "support.test_units"
local recorder = require "support.root" .. "tests/support/line_recorder.lua"
local M = {}

local LIMIT = 300 -- seconds; a unit that takes longer than that counts as failed

--- Returns the functions of a Lua file whose heads end a line: {{line=, indent=}, ...}.
local function headers_of(text)
  local list, number = {}, 0
  for line in text:gmatch "([^\n]*)\n" do
    number = number + 1
    if line:find "%f[%w_]function[%s%w_.:]*%([%w_,%s%.]*%)%s*$" and not line:find "^%s*%-%-" then
      list[#list + 1] = {line = number, indent = #line:match "^%s*"}
    end
  end
  return list
end

local function replace_line(text, number, change)
  local at = 0
  return (text:gsub("[^\n]*\n", function(line)
    at = at + 1
    if at == number then return change(line:sub(1, -2)) .. "\n" end
  end))
end

--- Returns the line that decides whether line NUMBER of a file has run: in Lua the head of its function, 0 for code
-- outside functions; in C the line itself, or the last line before it with code. code: set of "file:line".
function M.line_of(file, text, number, code)
  local found = file:find "%.lua$" and 0 or number
  if found == 0 then
    local at, indent = 0, 0
    for line in text:gmatch "([^\n]*)\n" do
      at = at + 1
      if at == number then indent = #line:match "^%s*" end
    end
    for _, header in ipairs(headers_of(text)) do
      if header.line < number and header.indent < indent then found = header.line end
    end
  else
    while code and found > 1 and not code[file .. ":" .. found] do found = found - 1 end
  end
  return file .. ":" .. found
end

--- Changes the copy of the sources at TREE, before it is configured, so that it records what runs.
function M.prepare(tree, rooms, files)
  local folders = {}
  for _, room in ipairs(rooms) do
    if room:find "^runtime" then folders[#folders + 1] = "${PROJECT_SOURCE_DIR}/" .. room .. "/*.c" end
  end
  local lists = tree .. "/CMakeLists.txt"
  shell.write(lists, shell.read(lists) .. ([[

file(GLOB_RECURSE covered %s)
set_source_files_properties(${covered} PROPERTIES COMPILE_OPTIONS --coverage)
target_link_options(atomo PRIVATE --coverage)
]]):format(table.concat(folders, " ")))
  -- A test's child that ends by _exit runs no exit handlers, so it writes gcov's counts itself.
  shell.write(tree .. "/gcov_exit.h", "#include <unistd.h>\nextern void __gcov_dump(void);\n" ..
    "#define _exit(code) do { int code_ = (code); __gcov_dump(); _exit(code_); } while (0)\n")
  local tests = tree .. "/tests/CMakeLists.txt"
  shell.write(tests, ("link_libraries(--coverage)\nadd_compile_options(-include %s/gcov_exit.h)\n"):format(tree) ..
    shell.read(tests))
  -- The same for a process that the watchdog ends.
  local ending = tree .. "/runtime/watchdog/ending.c"
  shell.write(ending, (shell.read(ending):gsub("\n    (atomo_mpi_abort%(code%);)",
    "\n    { extern void __gcov_dump(void); __gcov_dump(); } %1")))
  for _, file in ipairs(files) do
    if file:find "%.lua$" then
      local text = shell.read(tree .. "/" .. file)
      for _, header in ipairs(headers_of(text)) do
        text = replace_line(text, header.line, function(line)
          return ("%s debug.runs(%q)"):format(line, file .. ":" .. header.line)
        end)
      end
      shell.write(tree .. "/" .. file, ("dofile(%q)(%q) debug.runs(%q) %s"):format(recorder,
        tree .. "/lines", file .. ":0", text))
    end
  end
end

--- Adds the lines with a count in gcov's report to the set `lines` ("file:line" -> true).
local function add_counted(report, tree, lines)
  local file
  for line in report:gmatch "[^\n]+" do
    local count, number, rest = line:match "^%s*([^:]+):%s*(%d+):(.*)"
    if number == "0" then
      local source = rest:match "^Source:(.*)"
      if source and source:sub(1, #tree + 1) == tree .. "/" then source = "../" .. source:sub(#tree + 2) end
      if source then file = source:match "^%.%./(.*)" end -- ccache makes paths relative to the build's folder
    elseif file and count and count:find "^%d" then
      lines[file .. ":" .. number] = true
    end
  end
end

--- Runs one unit in the recording tree; writes its result, its seconds and every line that it ran to PATH.
function M.measure(tree, unit, path)
  os.execute(("rm -f %s; find %s -name '*.gcda' -delete"):format(shell.quote(tree .. "/lines"),
    shell.quote(tree .. "/build")))
  local passed, seconds = shell.run(tree, test_units.command {unit}, LIMIT, tree .. "/test.log")
  shell.run(tree .. "/build", "sh -c 'find . -name \"*.gcda\" | xargs -r gcov -t 2> /dev/null'", LIMIT,
    tree .. "/gcov.log")
  local lines, sorted = {}, {}
  for line in (shell.read(tree .. "/lines") or ""):gmatch "[^\n]+" do lines[line] = true end
  add_counted(shell.read(tree .. "/gcov.log") or "", tree, lines)
  for line in pairs(lines) do sorted[#sorted + 1] = line end
  table.sort(sorted)
  shell.write(path, ("%s %.1f\n%s\n"):format(passed and "passed" or "failed", seconds, table.concat(sorted, "\n")))
end

--- Returns the lines of C with code ("file:line" -> true).
function M.code_lines(tree)
  local lines = {}
  shell.run(tree .. "/build", "sh -c 'find . -name \"*.gcno\" | sed s/gcno$/gcda/ | xargs gcov -t 2> /dev/null'", LIMIT,
    tree .. "/gcov.log")
  add_counted(shell.read(tree .. "/gcov.log"):gsub("#####", "1"):gsub("=====", "1"), tree, lines)
  return lines
end

--- Reads a file of `measure`: {passed=, seconds=, lines={"file:line" = true}}, or nil if the unit was not measured.
function M.load(path)
  local text = shell.read(path)
  if not text then return nil end
  local said, seconds = text:match "^(%a+) (%S+)\n"
  local lines = {}
  for line in text:gmatch "\n([^\n]+)" do lines[line] = true end
  return {passed = said == "passed", seconds = tonumber(seconds), lines = lines}
end

return M
