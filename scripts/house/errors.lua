--- Checks error texts of the library: a value of the user goes into them by brief(v), because tostring(v) would print a
--- whole tensor.
local M = {}

--- Calls that raise their text.
local RAISES = {"raise", "error", "refuse"}

--- Returns the line of a position in a text.
local function line_of(text, at) return 1 + select(2, text:sub(1, at):gsub("\n", "")) end

function M.check(tree, paths, fault)
  for _, path in ipairs(paths) do
    local library = path:match "^bindings/atomo/(.*)%.lua$"
    for _, name in ipairs(library and not library:find "^tools/" and library ~= "core/brief" and RAISES or {}) do
      local text = tree[path]
      for at, call in text:gmatch("()%f[%w_]" .. name .. "(%b())") do
        if call:gsub('"[^"\n]*"', '""'):gsub("'[^'\n]*'", "''"):find("%f[%w_]tostring%(") then
          fault(("%s:%d: %s(... tostring(v) ...), expected brief(v): v may be a tensor"):format(path, line_of(text, at),
            name))
        end
      end
    end
  end
end

return M
