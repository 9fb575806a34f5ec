--- Converts the Markdown pages of a folder to HTML by cmark or pandoc (programs of the system), with links of names.
local output = require "atomo.core.files"
local quote = require("atomo.core.shell_words").quote

local HEAD = [[
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>atomo-lua: %s</title><style>
body { font: 16px/1.5 sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
pre, code { font: 14px/1.4 monospace; background: #f4f4f4 } pre { padding: .6rem; overflow-x: auto }
h3 { margin-top: 2rem; border-top: 1px solid #ddd; padding-top: .6rem }
</style></head><body>
<p><a href="index.html">Reference of atomo-lua</a></p>
]]

local UNLINKED = {pre = true, a = true, h1 = true, h2 = true, h3 = true}

--- Returns the place of a word of the text: "F.relu", "atomo.nn.Linear", "t:abs", "atomo.Tensor"; nil if it is no name.
local function place_of(word, places)
  return places[word] or places[word:match "^atomo%.(.*)" or ""] or places[word:gsub("^t:", "Tensor:")]
end

--- Returns HTML with links from the names in its text, except in headings and blocks of code, and from an entry to
--- itself. Names of entries in headings become their anchors.
local function linked(body, places)
  local own, within = {}, nil
  body = body:gsub("<h3>(.-)</h3>", function(heading)
    return "<h3>" .. heading:gsub("<code>([%w_.:]+)", '<code id="%1">%1') .. "</h3>"
  end)
  return (body:gsub("(<(/?)(%w+)([^>]*)>)([^<]*)", function(tag, closing, name, attributes, text)
    if name == "h3" and closing == "" then own = {} end
    local id = attributes:match 'id="([^"]*)"'
    if id then own[id] = true end
    if UNLINKED[name] then within = closing == "" and (within or name) or within ~= name and within or nil end
    if within then return end
    return tag .. text:gsub("[%a_][%w_.:]*[%w_]", function(word)
      local place = place_of(word, places)
      if not place or own[place:match "#(.*)" or ""] then return end
      local page, anchor = place:match "^([^#]*)(.*)$"
      return ('<a href="%s.html%s">%s</a>'):format(page, anchor, word)
    end)
  end))
end

--- Writes FOLDER/NAME.html beside each FOLDER/NAME.md.
---@param folder string
---@param files string[]  names without ending
---@param program string  path of cmark or pandoc
---@param places table<string, string>  name -> page, or page#entry
return function(folder, files, program, places)
  local options = program:find "pandoc" and " -f gfm -t html " or " "
  for _, name in ipairs(files) do
    local path = ("%s/%s"):format(folder, name)
    local pipe = assert(io.popen(quote(program) .. options .. quote(path .. ".md")))
    local body = pipe:read "*a"
    pipe:close()
    if body == "" then error(("reference: %s wrote nothing for %s.md"):format(program, path), 0) end
    body = linked(body:gsub('href="([%w_]+)%.md"', 'href="%1.html"'), places)
    output.save("reference", path .. ".html", HEAD:format(name) .. body .. "</body></html>\n")
  end
end
