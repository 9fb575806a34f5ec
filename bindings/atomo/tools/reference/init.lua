--- Writes the reference as Markdown pages from the annotations in the source: every public name with its arguments,
-- results and an example that a spec has run; and every name of the public C headers.
--   build/atomo-lua -e 'require "atomo.tools.reference" (require "atomo", "FOLDER", {"runtime/atomo_codec.h"})'
local output = require "atomo.core.files"
local examples = require "atomo.tools.reference.examples"
local header = require "atomo.tools.reference.header"
local markdown = require "atomo.tools.reference.markdown"
local names = require "atomo.tools.reference.names"
local paragraphs, plain = markdown.paragraphs, markdown.plain

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

--- Returns the page of a C header: a heading with the names that a comment is about, the comment, the declarations.
local function header_text(parsed)
  local parts = {("# %s\n\n%s\n"):format(plain(parsed.name), paragraphs(parsed.intro))}
  for _, section in ipairs(parsed.sections) do
    parts[#parts + 1] = ("## %s\n"):format(plain(section.title))
    for _, block in ipairs(section.blocks) do
      local list = {}
      for i, name in ipairs(block.names) do list[i] = code(name) end
      if #list > 0 then parts[#parts + 1] = "### " .. table.concat(list, " ") .. "\n" end
      parts[#parts + 1] = paragraphs(block.text) .. "\n"
      parts[#parts + 1] = "```c\n" .. block.code .. "\n```\n"
    end
  end
  return table.concat(parts, "\n")
end

--- Writes index.md and a page for each module, class and C header. Returns the list of the pages' names, and
--- name -> page, with "#name" if the name has an entry on it: "F.relu" -> "functional#F.relu", and "atomo.Tensor" ->
--- "tensor".
---@param atomo table        the module
---@param folder string      an existing folder
---@param headers string[]?  paths of public C headers
---@return string[], table<string, string>
return function(atomo, folder, headers)
  local index = {"# Reference of atomo-lua " .. atomo.versions().atomo .. "\n",
    "Generated from the annotations in the source. Every example is run by the tests; `-->` is followed by what " ..
    "`tostring` gives. Misuse raises an error that names the argument, what came and what was expected.\n"}
  local files, places = {"index"}, {}
  local function add(file, title, count, text)
    output.save("reference", ("%s/%s.md"):format(folder, file), text)
    index[#index + 1] = ("- [%s](%s.md): %d names"):format(plain(title), file, count)
    files[#files + 1] = file
  end
  for _, page in ipairs(names.pages(atomo)) do
    add(page.file, page.title, #page.entries, page_text(page))
    for _, part in ipairs(page.parts) do
      local class = part.prefix:match "^(%a+):$"
      if class then places["atomo." .. (class == "Communicator" and "Comm" or class)] = page.file end
    end
    for _, entry in ipairs(page.entries) do places[entry.name] = ("%s#%s"):format(page.file, entry.name) end
  end
  for _, path in ipairs(headers or {}) do
    local parsed, count = header.read(path), 0
    local file = parsed.name:gsub("%.h$", "_h")
    for _, section in ipairs(parsed.sections) do
      for _, block in ipairs(section.blocks) do
        count = count + #block.names
        for _, name in ipairs(block.names) do places[name] = ("%s#%s"):format(file, name) end
      end
    end
    add(file, "C: " .. parsed.name, count, header_text(parsed))
  end
  output.save("reference", folder .. "/index.md", table.concat(index, "\n") .. "\n")
  return files, places
end
