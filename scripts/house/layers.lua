--- Checks layers: a file may only use files of its own layer and of layers that precede it in the tables below. In Lua
-- a use is a require, also inside a function; in C an include, or a name that another file defines.
local M = {}

-- The lowest layer is first. A folder inside a layer belongs to it unless it has a row of its own.
local C_LAYERS = {
  "runtime/atomo_codec.h", "runtime/atomo.h", "runtime/atomo_bindings.h", "runtime/core", "runtime/tensor",
  "runtime/linalg", "runtime/nn", "runtime/optim", "runtime/io", "runtime/sampling", "runtime/coding", "runtime/data",
  "runtime/comm", "runtime/codec", "runtime/atoms/common", "runtime/atoms", "runtime/compress/common",
  "runtime/compress", "runtime/watchdog", "runtime/exchange", "runtime/host",
}
-- The folders of libatomo-codec (CMakeLists.txt), which use no other folder of the runtime.
local CODEC_LIBRARY = {core = true, tensor = true, sampling = true, coding = true, codec = true, atoms = true,
  compress = true}
local LUA_LAYERS = {
  "bindings/atomo/ffi.lua", "bindings/atomo/core", "bindings/atomo/tensor", "bindings/atomo/autograd",
  "bindings/atomo/nn/functional", "bindings/atomo/nn", "bindings/atomo/comm", "bindings/atomo/data",
  "bindings/atomo/optim", "bindings/atomo/compress", "bindings/atomo/exchange", "bindings/atomo/train",
  "bindings/atomo/tools", "bindings/atomo/host", "bindings/atomo/init.lua",
}

--- Returns number and name of a path's layer, the longest row that is a prefix of it; nil if there is none.
local function layer_of(path, rows)
  local best, number
  for i, row in ipairs(rows) do
    if (path == row or path:sub(1, #row + 1) == row .. "/") and (not best or #row > #best) then
      best, number = row, i
    end
  end
  return number, best
end

local function line_of(text, at)
  local _, lines = text:sub(1, at):gsub("\n", "")
  return lines + 1
end

--- Makes a graph {arrows = {{from=, to=, line=, what=}}, files =, rows =}; repeated arrows are added once.
local function new_graph(name, rows)
  local graph, seen = {name = name, rows = rows, arrows = {}, files = 0}, {}
  function graph.add(from, to, line, what)
    if from == to or seen[from .. "\0" .. to] then return end
    seen[from .. "\0" .. to] = true
    graph.arrows[#graph.arrows + 1] = {from = from, to = to, line = line, what = what}
  end
  return graph
end

-- ---- C ------------------------------------------------------------------------------------------------------------

--- Returns C source with comments and strings replaced by spaces; line numbers stay the same.
local function bare_c(text)
  local out, at = {}, 1
  local function blank(s) return (s:gsub("[^\n]", " ")) end
  while true do
    local from = text:find("[/\"']", at)
    if not from then break end
    out[#out + 1] = text:sub(at, from - 1)
    local c, stop = text:sub(from, from)
    if text:sub(from, from + 1) == "/*" then
      stop = select(2, text:find("*/", from + 2, true)) or #text
    elseif text:sub(from, from + 1) == "//" then
      stop = (text:find("\n", from, true) or #text + 1) - 1
    elseif c == "/" then
      out[#out + 1], at = "/", from + 1
    else
      stop = from + 1
      while stop <= #text and text:sub(stop, stop) ~= c do
        stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
      end
    end
    if stop then
      out[#out + 1] = blank(text:sub(from, stop))
      at = stop + 1
    end
  end
  out[#out + 1] = text:sub(at)
  return table.concat(out)
end

--- Calls add(name) for functions and objects with external linkage that a C file defines at the beginning of a line.
local function definitions(bare, add)
  for head in ("\n" .. bare):gmatch "\n(%a[^;{}=#]*)[{=]" do
    if not head:find "^static%s" and not head:find "^typedef%s" and not head:find "^extern%s" then
      local name = head:match "^[^(]*(atomo_[%w_]+)%s*%(" or head:gsub("%b[]", ""):match "[%w_]%s+%*?(atomo_[%w_]+)%s*$"
      if name and not head:find("^%a+%s+" .. name .. "%s*$") then add(name) end -- not `struct atomo_x {`
    end
  end
end

function M.of_c(tree, paths)
  local graph, bare, owner = new_graph("runtime", C_LAYERS), {}, {}
  for _, path in ipairs(paths) do
    if path:find "^runtime/.*%.[ch]$" then
      graph.files = graph.files + 1
      bare[path] = bare_c(tree[path])
      if path:find "%.c$" then
        definitions(bare[path], function(name) owner[name] = owner[name] or path end)
      end
    end
  end
  for _, path in ipairs(paths) do
    if bare[path] then
      for at, name in tree[path]:gmatch '\n?()#include "([^"]+)"' do
        if tree["runtime/" .. name] then
          graph.add(path, "runtime/" .. name, line_of(tree[path], at), 'includes "' .. name .. '"')
        end
      end
      if not path:find "^runtime/atomo[%w_]*%.h$" then -- the public headers declare names of all layers
        for at, name in bare[path]:gmatch "()(atomo_[%w_]+)" do
          if owner[name] then graph.add(path, owner[name], line_of(bare[path], at), "uses " .. name) end
        end
      end
    end
  end
  return graph
end

-- ---- Lua ----------------------------------------------------------------------------------------------------------

local function module_path(tree, name)
  local path = "bindings/" .. name:gsub("%.", "/")
  if tree[path .. ".lua"] then return path .. ".lua" end
  if tree[path .. "/init.lua"] then return path .. "/init.lua" end
end

--- Returns a line without its comment. "--" in a string is taken for a comment, too; no require follows one in this
--- tree.
local function uncommented(line) return (line:gsub("%-%-.*", "")) end

--- Returns the modules of require("atomo.folder." .. variable): those of the list over which a `for` of this file runs,
-- else all modules of the folder.
local function made_names(tree, paths, path, prefix, variable)
  local list = {}
  local names = tree[path]:match("for [%w_]+, " .. variable:gsub("%p", "%%%0") .. " in ipairs (%b{})")
  for name in (names or ""):gmatch "[\"']([%w_]+)[\"']" do list[#list + 1] = module_path(tree, prefix .. name) end
  local folder = "bindings/" .. prefix:gsub("%.", "/")
  if names or folder == "bindings/atomo/" then return list end
  for _, to in ipairs(paths) do
    local name = to:sub(1, #folder) == folder and to:match("^([%w_]+)%.lua$", #folder + 1)
    if name and name ~= "init" then
      list[#list + 1] = to
    end
  end
  return list
end

function M.of_lua(tree, paths)
  local graph = new_graph("bindings", LUA_LAYERS)
  graph.missing = {}
  for _, path in ipairs(paths) do
    if path:find "^bindings/atomo/.*%.lua$" then
      graph.files = graph.files + 1
      local number = 0
      for line in (tree[path] .. "\n"):gmatch "(.-)\n" do
        number = number + 1
        line = uncommented(line)
        local what = line:match "^%s*(.-)%s*$"
        for prefix, variable in line:gmatch "require%s*%(?%s*[\"'](atomo[%w_.]*%.)[\"']%s*%.%.%s*([%w_.]+)" do
          for _, to in ipairs(made_names(tree, paths, path, prefix, variable)) do graph.add(path, to, number, what) end
        end
        -- module names in a table (init.lua) or in a require, also `require(x and "atomo.a" or "atomo.b")`
        local required = line:find "%f[%w]require%f[%W]"
        for name in line:gmatch "[\"'](atomo[%w_.]*)[\"']" do
          if required or path == "bindings/atomo/init.lua" then
            local to = module_path(tree, name)
            if to then
              graph.add(path, to, number, what)
            elseif required and name:find "^atomo%.[%w_.]*[^.]$" then
              graph.missing[#graph.missing + 1] = ("%s:%d: no module %s"):format(path, number, name)
            end
          end
        end
      end
    end
  end
  return graph
end

-- ---- checks -------------------------------------------------------------------------------------------------------

local function up(a, rows)
  local from, to = layer_of(a.from, rows), layer_of(a.to, rows)
  return from and to and to > from
end

--- Returns circles as lists of files: strongly connected components of more than one file (Tarjan's algorithm).
local function circles(arrows)
  local next_of, index, low, on, stack, found, count = {}, {}, {}, {}, {}, {}, 0
  for _, a in ipairs(arrows) do
    next_of[a.from] = next_of[a.from] or {}
    table.insert(next_of[a.from], a.to)
  end
  local function visit(v)
    count = count + 1
    index[v], low[v], on[v] = count, count, true
    stack[#stack + 1] = v
    for _, w in ipairs(next_of[v] or {}) do
      if not index[w] then
        visit(w)
        low[v] = math.min(low[v], low[w])
      elseif on[w] then
        low[v] = math.min(low[v], index[w])
      end
    end
    if low[v] == index[v] then
      local part = {}
      repeat
        local w = table.remove(stack)
        on[w] = nil
        table.insert(part, 1, w)
      until w == v
      if #part > 1 then found[#found + 1] = part end
    end
  end
  for _, a in ipairs(arrows) do
    if not index[a.from] then visit(a.from) end
  end
  return found
end

--- Returns the circles of a graph. In C only includes are considered: two files of one layer may call each other.
local function circles_of(graph)
  local list = {}
  for _, a in ipairs(graph.arrows) do
    if not a.what:find "^uses " then list[#list + 1] = a end
  end
  return circles(list)
end

--- Does an arrow leave the codec library for a folder of the runtime that is not part of it?
local function leaves_codec(a)
  local to = a.to:match "^runtime/([^/]+)/"
  return CODEC_LIBRARY[a.from:match "^runtime/([^/]+)/" or ""] and to and not CODEC_LIBRARY[to]
end

function M.check(graph, fault)
  for _, text in ipairs(graph.missing or {}) do fault(text) end
  local homeless = {}
  for _, a in ipairs(graph.arrows) do
    for _, path in ipairs {a.from, a.to} do
      if not layer_of(path, graph.rows) and not homeless[path] then
        homeless[path] = true
        fault(path .. ": lies in no layer (scripts/house/layers.lua)")
      end
    end
    if up(a, graph.rows) then
      fault(("%s:%d: looks up to %s: %s"):format(a.from, a.line, a.to, a.what))
    elseif leaves_codec(a) then
      fault(("%s:%d: leaves the codec library for %s: %s"):format(a.from, a.line, a.to, a.what))
    end
  end
  for _, part in ipairs(circles_of(graph)) do fault("a circle: " .. table.concat(part, ", ")) end
end

function M.summary(graph)
  local count = 0
  for _, a in ipairs(graph.arrows) do
    if up(a, graph.rows) then count = count + 1 end
  end
  return ("%s: %d files, %d arrows, %d up, %d circles"):format(graph.name, graph.files, #graph.arrows, count,
    #circles_of(graph))
end

return M
