--- Writes the manual pages of the public C headers: atomo_codec.3 and atomo.3.
local files = require "atomo.core.files"
local header = require "atomo.tools.reference.header"
local roff = require "atomo.tools.roff"
local version = require("atomo.core.version").versions().atomo

local function verbatim(text) return ".nf\n" .. roff(text) .. "\n.fi\n" end

--- Returns a comment's lines as paragraphs; indented ones are shown as they are.
local function prose(lines)
  local parts = {}
  for _, line in ipairs(lines) do
    parts[#parts + 1] = line == "" and ".PP\n" or line:find "^%s%s+%S" and verbatim(line) or roff(line) .. "\n"
  end
  return table.concat(parts)
end

local function page_of(parsed)
  local name, first = parsed.name:gsub("%.h$", ""), {}
  local rest = {unpack(parsed.intro)}
  repeat first[#first + 1] = table.remove(rest, 1) until rest[1] == ""
  local summary, more = table.concat(first, " "):match "%- (.-)%. (.*)$"
  local parts = {('.TH "%s" 3 "" "atomo\\-lua %s" "C functions"\n.SH NAME\n%s \\- %s\n'):format(roff(name:upper()),
    version, roff(name), roff(summary)), ".SH SYNOPSIS\n#include <", roff(parsed.name), ">\n.SH DESCRIPTION\n",
    roff(more), "\n", prose(rest)}
  for _, section in ipairs(parsed.sections) do
    parts[#parts + 1] = (".SH %s\n"):format(roff(section.title:upper()))
    for _, block in ipairs(section.blocks) do
      parts[#parts + 1] = ".PP\n" .. verbatim(block.code) .. ".RS 4\n" .. prose(block.text) .. ".RE\n"
    end
  end
  return name, table.concat(parts)
end

--- Writes a page for each header.
---@param headers string[]  paths
---@param folder string     an existing folder
return function(headers, folder)
  for _, path in ipairs(headers) do
    local name, text = page_of(header.read(path))
    files.save("manual", ("%s/%s.3"):format(folder, name), text)
  end
end
