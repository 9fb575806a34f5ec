-- Damaged files of every format: cut at any length, or with bytes changed, a reader gives data or an error that names
-- the file; it never crashes. Under a sanitizer reads outside of memory fail, too.
local atomo = require "atomo"
local folders = require "support.folders"
local golden = dofile(require "support.root" .. "tests/golden/data_files.lua")
local unhex = folders.unhex

local cases = {["a.csv"] = {"a,\"b \"\"c\"\"\",label\r\n1,2.5,cat\n-3e2,\" 4\",dog\n"}}
for name, text in pairs(golden.images) do
  local ending = name:match "%.%w+$"
  if name ~= "smooth.ppm" then
    cases["class/a" .. ending] = cases["class/a" .. ending] or {}
    table.insert(cases["class/a" .. ending], unhex(text))
  end
end
cases["a_32x32.mat"] = {unhex(golden.mats.svhn), unhex(golden.mats.plain)}
cases["a.npz"] = {unhex(golden.npzs.plain), unhex(golden.npzs.keras)}

--- A generator of whole numbers below m, the same in every run.
local function dice(seed)
  return function(m)
    seed = (seed * 16807) % 2147483647
    return seed % m
  end
end

--- Calls try(bytes) for `count` damaged versions of a file.
local function damage(bytes, count, roll, try)
  for i = 1, count do
    local b = {bytes:byte(1, -1)}
    if i % 3 == 0 then
      try(bytes:sub(1, roll(#bytes)))
    elseif i % 3 == 1 then
      for _ = 1, 1 + roll(3) do b[1 + roll(#b)] = roll(256) end
      try(string.char(unpack(b)))
    else
      local from = 1 + roll(#b)
      try(bytes:sub(1, from) .. bytes:sub(from + 1 + roll(8)) .. bytes:sub(1, roll(9)))
    end
  end
end

describe("a damaged file", function()
  for name, list in pairs(cases) do
    it(name .. " gives data, or an error that names it", function()
      local refused, roll = 0, dice(7)
      folders.with({[name] = ""}, function(path)
        local file = path .. "/" .. name
        for _, bytes in ipairs(list) do
          damage(bytes, 45, roll, function(damaged)
            folders.write(file, damaged)
            local ok, problem = pcall(atomo.data.open, name:find "/" and path or file)
            if not ok then
              refused = refused + 1
              assert.truthy(tostring(problem):find(file, 1, true) or tostring(problem):find("label", 1, true), problem)
            end
          end)
        end
      end)
      assert.is_true(refused > 10 * #list, refused .. " refused") -- so the damage reached what is checked
    end)
  end
end)
