--- Converts the Markdown pages of a folder to HTML by cmark or pandoc (programs of the system).
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

--- Writes FOLDER/NAME.html beside each FOLDER/NAME.md.
---@param folder string
---@param files string[]  names without ending
---@param program string  path of cmark or pandoc
return function(folder, files, program)
  local options = program:find "pandoc" and " -f gfm -t html " or " "
  for _, name in ipairs(files) do
    local path = ("%s/%s"):format(folder, name)
    local pipe = assert(io.popen(quote(program) .. options .. quote(path .. ".md")))
    local body = pipe:read "*a"
    pipe:close()
    if body == "" then error(("reference: %s wrote nothing for %s.md"):format(program, path), 0) end
    body = body:gsub('href="([%w_]+)%.md"', 'href="%1.html"')
    output.save("reference", path .. ".html", HEAD:format(name) .. body .. "</body></html>\n")
  end
end
