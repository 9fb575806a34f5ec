--- Checks help texts (faults), and lists long files, words to avoid and long lines of prose (no faults).
local prose = require("house.references").prose
local M = {}

--- Checks declarations of options for atomo.cli.parse: {"name", "flag", true, "help"}, choices = {...}.
function M.check_help(tree, paths, fault)
  for _, path in ipairs(paths) do
    if path:find "^scripts/[^/]*%.lua$" or path:find "^bindings/atomo/tools/.*%.lua$" then
      local text = tree[path]
      for at, name, help in text:gmatch '(){"([%w-]+)",%s*"flag",%s*true,%s*"([^"]*)"' do
        if not help:find "^turn off " then
          local _, lines = text:sub(1, at):gsub("\n", "")
          fault(('%s:%d: the help of --no-%s does not begin with "turn off": "%s"'):format(path, lines + 1, name, help))
        end
      end
      for at, choices in text:gmatch "()choices%s*=%s*(%b{})" do
        if choices:find '""' then
          local _, lines = text:sub(1, at):gsub("\n", "")
          fault(("%s:%d: one of the choices is empty, give it a name: %s"):format(path, lines + 1, choices))
        end
      end
    end
  end
end

local LIMITS = {{"^runtime/atomo[%w_]*%.h$", 600}, {"^runtime/.*%.h$", 250}, {"^runtime/.*%.c$", 330},
  {"^bindings/.*%.lua$", 300}, {"^scripts/.*%.lua$", 300}, {"^models/.*%.lua$", 300}}

-- Words that have been replaced by another word (one word for one thing), and phrases that are hard to read.
local WORDS = {"parcel", "beacon", "agree%.c", "peers", "ones?'s own", "so many", "goes on", "but for",
  "the same bits", "where there is none", "those that", "what is", "what a"}

local function list_long(tree, paths, say)
  for _, path in ipairs(paths) do
    for _, limit in ipairs(LIMITS) do
      if path:find(limit[1]) then
        local _, lines = tree[path]:gsub("\n", "")
        if lines > limit[2] then say(("long: %s has %d lines (%d)"):format(path, lines, limit[2])) end
        break
      end
    end
  end
end

local function list_words(tree, paths, all, say)
  for _, word in ipairs(WORDS) do
    local count, files = 0, 0
    for _, path in ipairs(paths) do
      if (path:find "%.[ch]$" or path:find "%.lua$" or path:find "%.md$") and path ~= "CHANGELOG.md"
        and not path:find "^scripts/house/" then
        local before = count
        prose(path, tree[path], function(line, number)
          local _, n = line:lower():gsub("%f[%w]" .. word, "")
          count = count + n
          if n > 0 and all then say(("word: %s:%d: %s"):format(path, number, line:match "^%s*(.-)%s*$")) end
        end)
        if count > before then files = files + 1 end
      end
    end
    if count > 0 then say(('word: "%s" %d times in %d files'):format(word:gsub("%%", ""), count, files)) end
  end
end

--- Returns the number of characters of UTF-8 text: bytes that do not continue a character.
local function width(line) return select(2, line:gsub("[^\128-\191]", "")) end

local function list_wide(tree, paths, say)
  for _, path in ipairs(paths) do
    if path:find "%.md$" then
      local wide, code = 0, false
      for line in (tree[path] .. "\n"):gmatch "(.-)\n" do
        if line:find "^```" then code = not code end
        if width(line) > 120 and not code and not line:find "^|" then wide = wide + 1 end
      end
      if wide > 0 then say(("wide: %s has %d lines of prose over 120 columns"):format(path, wide)) end
    end
  end
end

function M.list(tree, paths, all, say)
  list_long(tree, paths, say)
  list_words(tree, paths, all, say)
  list_wide(tree, paths, say)
end

return M
