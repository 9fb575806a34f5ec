--- Elements of SVG texts.
local M = {}

local entities = {["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\""] = "&quot;"}

--- Returns text for an attribute or the content of an element of SVG or HTML.
function M.escape(text) return (tostring(text):gsub("[&<>\"]", entities)) end

--- Returns text at (x, y). more: further attributes.
---@param more string?
function M.text(x, y, text, more)
  return ('<text x="%.1f" y="%.1f" %s>%s</text>'):format(x, y, more or "", M.escape(text))
end

--- Returns the first line of an SVG of that size in pixels. It shrinks with the page that it is in.
function M.head(width, height)
  return (('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" ' ..
    'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="12">\n' ..
    '<rect width="%d" height="%d" fill="white"/>'):format(width, height, width, height, width, height))
end

--- Returns a line from (x1, y1) to (x2, y2). more: further attributes.
function M.line(x1, y1, x2, y2, colour, more)
  return ('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" %s/>'):format(x1, y1, x2, y2, colour, more or "")
end

--- About the width of a text in pixels at font size 12.
function M.width(text) return 7 * #text:gsub("[\128-\191]", "") end

return M
