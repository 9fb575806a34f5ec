--- Writes the reference as Markdown pages from the annotations in the source: every public name with its arguments,
-- results and an example that a spec has run.
--   build/atomo-lua -e 'require "atomo.tools.reference" (require "atomo", "FOLDER")'
local output = require "atomo.core.files"
local examples = require "atomo.tools.reference.examples"
local names = require "atomo.tools.reference.names"

--- Escapes what Markdown would read as markup, outside of code.
local function plain(text) return (text:gsub("[<>*|\\]", "\\%0"):gsub("_", "\\_")) end

local function code(text) return "`" .. text .. "`" end

--- Returns a name as one calls it: "t:abs", not "Tensor:abs".
local function heading(entry)
  local arguments = {}
  for i, name in ipairs(entry.arguments or {}) do
    if name ~= "self" then arguments[#arguments + 1] = entry.arguments[i] end
  end
  if not entry.arguments then
    for _, p in ipairs(entry.params) do arguments[#arguments + 1] = p.name end
  end
  return ("%s(%s)"):format(entry.name, table.concat(arguments, ", "))
end

--- Returns a comment's text as paragraphs: indented lines become a block of code.
local function paragraphs(text)
  local lines, in_code = {}, false
  for _, line in ipairs(text) do
    local is_code = line:find "^%s%s+%S" ~= nil
    if is_code ~= in_code then lines[#lines + 1] = is_code and "\n```text" or "```\n" end
    in_code = is_code
    lines[#lines + 1] = is_code and line or plain(line)
  end
  if in_code then lines[#lines + 1] = "```" end
  return table.concat(lines, "\n")
end

local function typed(head, tag)
  return ("- %s%s%s"):format(head, code(tag.type), tag.text ~= "" and ": " .. plain(tag.text) or "")
end

local function entry_text(entry)
  local lines = {("### %s\n"):format(code(heading(entry))), paragraphs(entry.text), ""}
  for _, p in ipairs(entry.params) do lines[#lines + 1] = typed(code(p.name) .. " ", p) end
  for _, r in ipairs(entry.returns) do lines[#lines + 1] = typed("returns ", r) end
  if #entry.params + #entry.returns > 0 then lines[#lines + 1] = "" end
  lines[#lines + 1] = "```lua\n" .. table.concat(entry.usage, "\n"):gsub(" %-%-> ", "  --> ") .. "\n```\n"
  return table.concat(lines, "\n")
end

local function page_text(page)
  local parts = {("# %s\n\n%s\n\nThe examples begin with:\n\n```lua\n%s\n```\n"):format(page.title, page.text,
    (examples.prelude(page):gsub("%s+$", "")))}
  local list = {}
  for i, entry in ipairs(page.entries) do list[i] = code(entry.name:match "[^.:]+$") end
  parts[#parts + 1] = "Names: " .. table.concat(list, " ") .. "\n"
  for _, entry in ipairs(page.entries) do parts[#parts + 1] = entry_text(entry) end
  return table.concat(parts, "\n")
end

--- Writes index.md and a page for each module and class; returns the list of the pages' names.
---@param atomo table   the module
---@param folder string an existing folder
---@return string[]
return function(atomo, folder)
  local index = {"# Reference of atomo-lua " .. atomo.versions().atomo .. "\n",
    "Generated from the annotations in the source. Every example is run by the tests; `-->` is followed by what " ..
    "`tostring` gives. Misuse raises an error that names the argument, what came and what was expected.\n"}
  local files = {"index"}
  for _, page in ipairs(names.pages(atomo)) do
    output.save("reference", ("%s/%s.md"):format(folder, page.file), page_text(page))
    index[#index + 1] = ("- [%s](%s.md): %d names"):format(page.title, page.file, #page.entries)
    files[#files + 1] = page.file
  end
  output.save("reference", folder .. "/index.md", table.concat(index, "\n") .. "\n")
  return files
end
