-- scripts/train_cifar.lua on data of the user's: a Lua file, class folders, a table; and what it says about data that
-- it cannot train on.
-- test: slow
local root = require "support.root"
local folders = require "support.folders"
local spawn = require "support.spawn"
local process = spawn.specs(it, pending)

local function has(text, ...)
  for _, what in ipairs {...} do
    assert(text:find(what, 1, true), ("expected %q in:\n%s"):format(what, text))
  end
end

local function train(options)
  return ("%sscripts/train_cifar.lua --epochs 1 --batch 4 --lr 0.01 --compress none %s"):format(root, options)
end

--- A Lua file of data with a user's set of 20 images 6x5x1, and a test set.
local my_data = [[
local atomo = require "atomo"
local Set = {}
Set.__index = Set
function Set:size() return self.n end
function Set:get(i) return atomo.full({6, 5, 1}, i / 20):mul_(255):to "u8", i % 3 end
return function() return {train = setmetatable({n = 20}, Set), test = setmetatable({n = 7}, Set), classes = 3} end
]]

--- Class folders of PGM images of 17x18 pixels.
local function images(count)
  local files = {}
  for i = 1, count do
    files[("images/%s/%d.pgm"):format(i % 2 == 0 and "even" or "odd", i)] = "P5 18 17 255\n" .. string.char(i):rep(306)
  end
  return files
end

describe("train_cifar.lua --data", function()
  process("takes a Lua file that returns sets of the user's", function()
    folders.with({["my_data.lua"] = my_data}, function(path)
      local out, code = spawn.ranks(2, train("--model resnet20 --data " .. path .. "/my_data.lua"), {timeout = 60})
      assert(code == 0, out)
      has(out, "data: my_data.lua, 20 training and 7 test images, 3 classes", "final test accuracy")
    end)
  end, true)

  process("takes class folders of images, and holds a part out for tests", function()
    folders.with(images(20), function(path)
      local options = "--model lenet --test-share 0.25 --data " .. path .. "/images"
      local out, code = spawn.host(train(options), {timeout = 60})
      assert(code == 0, out)
      has(out, "data: images, 15 training and 5 test images, 2 classes", "final test accuracy")
      out, code = spawn.host(train("--model alexnet --data " .. path .. "/images"), {timeout = 60})
      assert.equal(1, code, out)
      has(out, "alexnet: its strides and pooling layers leave nothing of images of 17 x 18, expected 29 x 29 or larger")
    end)
  end)

  process("takes a table for a network without images, and refuses numbers to predict", function()
    local rows = {"width,height,label"}
    for i = 1, 20 do rows[i + 1] = ("%g,%g,%s"):format(i / 10, -i, i % 2 == 0 and "even" or "odd") end
    local text = table.concat(rows, "\n")
    folders.with({["a.csv"] = text, ["b.csv"] = (text:gsub("even", "0.5"):gsub("odd", "1.5"))}, function(path)
      local out, code = spawn.host(train("--model mlp --data " .. path .. "/a.csv"), {timeout = 60})
      assert(code == 0, out)
      has(out, "data: a.csv, 18 training and 2 test images, 2 classes")
      out, code = spawn.host(train("--model resnet20 --data " .. path .. "/a.csv"), {timeout = 60})
      assert.equal(1, code, out)
      has(out, "resnet20: takes images", "the data have the shape {2}")
      out, code = spawn.host(train("--model mlp --data " .. path .. "/b.csv"), {timeout = 60})
      assert.equal(1, code, out)
      has(out, "the data have no classes")
      assert.is_nil(out:find("field classes", 1, true))
    end)
  end)

  process("refuses Lua files that return something else", function()
    for text, what in pairs {["return 5"] = "a number, expected {train = set", ["return {}"] = "without train and test",
      ["return {train = {}}"] = "train is a table without these, expected a set", ["return {"] = "unexpected symbol",
      ["local a = require('atomo') return {train = a.data.tensors {x = a.zeros(1), y = a.zeros(1)}}"] =
        "train is a loader, expected a set"} do
      folders.with({["d.lua"] = text}, function(path)
        local out, code = spawn.host(train("--data " .. path .. "/d.lua"), {timeout = 60})
        assert.equal(1, code, out)
        has(out, "d.lua", what)
      end)
    end
  end)
end)
