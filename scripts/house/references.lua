--- Checks references: files, documents and headings named in comments, documents and specs must exist.
local M = {}

local FOLDERS = {runtime = true, bindings = true, scripts = true, models = true, tests = true, docs = true,
  cmake = true, packaging = true, examples = true}
local ENDINGS = {c = true, h = true, lua = true, md = true, sh = true, py = true, cmake = true, svg = true, supp = true}
-- Words that name documents; a document named by them must exist.
local DOCUMENTS = {"DESIGN"}
-- Headers of other programs, and names of users' files in examples.
local FOREIGN = {["mpi.h"] = true, ["my.lua"] = true, ["script.lua"] = true, ["stdlib.h"] = true, ["math.h"] = true}

--- Calls see(text, line) for each line of a C or Lua file's comments, or of a document.
local function prose(path, text, see)
  local number, inside = 0, false
  for line in (text .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    if path:find "%.md$" then
      see(line, number)
    elseif path:find "%.lua$" then
      local comment = line:match "%-%-(.*)$"
      if comment then see(comment, number) end
    elseif path:find "%.[ch]$" then
      local rest, said = line, ""
      while rest do
        if inside then
          local text_of, after = rest:match "^(.-)%*/(.*)$"
          said, rest, inside = said .. (text_of or rest), after, text_of == nil
        else
          rest = rest:match "/%*(.*)$"
          inside = rest ~= nil
        end
      end
      if said ~= "" then see(said, number) end
    else
      local comment = line:match "#(.*)$"
      if comment then see(comment, number) end
    end
  end
end
M.prose = prose

--- Returns the set of anchors of a document's headings.
local function anchors_of(text)
  local anchors = {}
  for heading in ("\n" .. text):gmatch "\n#+%s+([^\n]*)" do
    anchors[heading:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-")] = true
  end
  return anchors
end

local function join(folder, path)
  while path:find "^%.%./" do
    path, folder = path:sub(4), folder:match "^(.*/)[^/]+/$" or ""
  end
  return folder .. path:gsub("^%./", "")
end

local function check_links(tree, path, text, fault)
  local folder = path:match "^(.*/)[^/]*$" or ""
  prose(path, text, function(line, number)
    for target in line:gmatch "%]%(([^)%s]+)%)" do
      local file, anchor = target:match "^([^#]*)#?(.*)$"
      local to = file == "" and path or join(folder, file)
      if target:find "^%a+:" then to = nil end
      if to and not tree[to] then
        fault(("%s:%d: links to %s, which is not there"):format(path, number, target))
      elseif to and anchor ~= "" and not anchors_of(tree[to])[anchor] then
        fault(("%s:%d: links to %s, but no heading of %s is called so"):format(path, number, target, to))
      end
    end
  end)
end

--- Does file `name` exist: relative to the root, to a folder that contains `path`, to runtime or to bindings?
local function found(tree, path, name)
  local folder = path
  repeat
    folder = folder:match "^(.*/)[^/]+/?$" or ""
    if tree[folder .. name] then return true end
  until folder == ""
  return (tree["runtime/" .. name] or tree["bindings/" .. name] or tree["bindings/atomo/" .. name]) ~= nil
end

local function check_names(tree, bases, path, text, fault)
  local source = path:match "^runtime/.*%.([ch])$" and "c" or path:match "^bindings/.*%.lua$" and "lua"
  prose(path, text, function(line, number)
    for before, name, after in (" " .. line .. " "):gmatch "([^%w_./$}*%-])([%w_][%w_/.-]*)()" do
      name = name:gsub("%.+$", "")
      local ending = name:match "%.(%a+)$"
      local follows = (" " .. line .. " "):sub(after, after)
      local top = name:match "^([%w_]+)/"
      local open = before == "<" or follows == "*" or follows == "{" or name:find "%u%u" or name:find "%.%."
      -- open: a placeholder for several files, such as NAME.c or x_*.c
      if ENDINGS[ending] and not open and not FOREIGN[name] then
        local kind = (ending == "h" or ending == "c") and "c" or ending
        local must = FOLDERS[top] or top and source == kind
        if must and not found(tree, path, name) then
          fault(("%s:%d: speaks of %s, which is not there"):format(path, number, name))
        elseif not top and source == kind and not bases[name] then
          fault(("%s:%d: speaks of %s, and no file is called so"):format(path, number, name))
        end
      end
    end
    for _, document in ipairs(DOCUMENTS) do
      local there = tree[document .. ".md"] or tree["docs/" .. document:lower() .. ".md"]
      if line:find("%f[%w]" .. document .. "%f[%W]") and not there then
        fault(("%s:%d: speaks of %s, a document that is not there"):format(path, number, document))
      end
    end
  end)
end

function M.check(tree, paths, fault)
  local bases = {}
  for _, path in ipairs(paths) do bases[path:match "[^/]*$"] = true end
  for _, path in ipairs(paths) do
    local ending = path:match "%.(%a+)$"
    if path:find "%.md$" then check_links(tree, path, tree[path], fault) end
    -- CHANGELOG.md may name files that no longer exist
    if (ENDINGS[ending] or path:find "CMakeLists.txt$") and path ~= "CHANGELOG.md" then
      check_names(tree, bases, path, tree[path], fault)
    end
  end
end

return M
