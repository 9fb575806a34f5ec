--- Checks names in the documents' code spans: atomo.x.y, nn.X, F.x, methods of objects that documents call by a usual
-- letter, C functions and constants.
local spawn = require "support.spawn"
local atomo = require "atomo"

local M = {}

local samples

--- Returns an object of each kind by the letter or word that documents use for it.
local function made()
  if samples then return samples end
  local layer = atomo.nn.Linear(2, 2)
  local optimizer = atomo.optim.sgd {params = layer:parameters(), lr = 0.1}
  local exchange, compressor = atomo.exchange {}, atomo.compressor "entry:ratio=4"
  samples = {t = atomo.zeros(1), p = atomo.param(atomo.zeros(1)), w = atomo.param(atomo.zeros(1)), c = compressor,
    ex = exchange, exchange = exchange, world = atomo.mpi.world, comm = atomo.mpi.world, m = layer, model = layer,
    net = layer, optimizer = optimizer, ema = atomo.optim.ema {params = layer:parameters(), decay = 0.9}}
  return samples
end

local holders = {nn = function() return atomo.nn end, F = function() return atomo.F end,
  atomo = function() return atomo end}

local function has(holder, name)
  local ok, value = pcall(function() return holder[name] end)
  return ok and value ~= nil
end

local python

--- Does the Python package define a class or function of this name?
local function in_python(name)
  if not python then
    local p = io.popen(("cat $(find %s -name '*.py')"):format(
      spawn.quote(require "support.root" .. "./bindings/python/atomo")))
    python = "\n" .. p:read "*a"
    p:close()
  end
  return python:find("\n%s*class " .. name .. "%f[%W]") ~= nil or python:find("\n%s*def " .. name .. "%f[%W]") ~= nil
end

local sources

--- Does a C source, header or CMake file of the tree contain this word?
local function in_sources(word)
  if not sources then
    local p = io.popen(("cd %s && cat $(find runtime cmake bindings scripts -name '*.[ch]' -o -name '*.lua' -o " ..
      "-name '*.cmake' -o -name '*.sh' -o -name '*.py') CMakeLists.txt"):format(
      spawn.quote(require "support.root" .. ".")))
    sources = p:read "*a"
    p:close()
  end
  return sources:find("%f[%w_]" .. word .. "%f[^%w_]") ~= nil
end

--- Calls fault(text) for each name in a code span that does not exist.
function M.check(span, fault)
  local padded = " " .. span
  for top, path in padded:gmatch "[^%w_%.:/\"'-]([%w]+)(%.[%a][%w_%.]*)" do
    local holder = path ~= ".h" and holders[top] and holders[top]()
    for name in holder and path:gmatch "[%w_]+" or function() end do
      if type(holder) ~= "table" or not has(holder, name) then
        if in_python(path:match "[%w_]+$") then break end
        fault(("%s%s: there is no %s"):format(top, path, name))
        break
      end
      holder = holder[name]
    end
  end
  for module in padded:gmatch "require%s*%(?[\"']([%w_%.]+)[\"']" do
    if not pcall(require, module) then fault(("there is no module %s"):format(module)) end
  end
  for top, name in padded:gmatch "[^%w_%.:/]([%a]+):([%a_][%w_]*)%f[(%z%s]" do
    local sample = made()[top]
    if sample and not has(sample, name) then fault(("%s:%s: there is no such method"):format(top, name)) end
  end
  for word in padded:gmatch "%f[%w_]([Aa][Tt][Oo][Mm][Oo]_[%w_]+)" do
    local upper, lower = word:find "^ATOMO_", word:find "^atomo_"
    if (upper or lower) and not word:find "_$" and not word:find "NAME" and not in_sources(word) then
      fault(("%s: no source has this name"):format(word))
    end
  end
end

return M
