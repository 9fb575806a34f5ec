-- Sets from arrays: X.npy and y.npy, .npz, SVHN's MAT-files, against NumPy's and SciPy's files; layouts; bad files.
local atomo = require "atomo"
local fails = require "support.fails"
local folders = require "support.folders"
local golden = dofile(require "support.root" .. "tests/golden/data_files.lua")
local data, unhex = atomo.data, folders.unhex

local function bytes_of(t) return require("ffi").string(t:contiguous():data(), t:numel()) end
local mat_x = unhex(golden.mat_x.bytes)

--- Calls fn(path) for a folder with these tensors as .npy files.
local function with_arrays(tensors, fn)
  folders.with({["X.txt"] = ""}, function(path)
    for name, t in pairs(tensors) do t:save_npy(path .. "/" .. name .. ".npy") end
    fn(path)
  end)
end

--- Returns whole numbers from 0 on in this shape.
local function whole(a, b, c, d) return atomo.arange(a * b * (c or 1) * (d or 1)):view(a, b, c, d) end

describe("X.npy and y.npy", function()
  it("are images [n,h,w,c] of bytes or floats, with class ids", function()
    local x = whole(2, 3, 4, 2)
    with_arrays({X = x:to "u8", y = atomo.tensor({1, 0}, "u8")}, function(path)
      local d = data.open(path)
      assert.same({3, 4, 2}, d.shape)
      assert.equal("u8", d.train.images:dtype())
      assert.equal(2, d.classes)
      assert.same({1, 0}, d.train.labels:totable())
      assert.same(x:reshape(48):totable(), d.train.images:reshape(48):totable())
    end)
    with_arrays({x = x / 50, labels = atomo.tensor {0, 4}}, function(path)
      local d = data.open(path)
      assert.equal("f32", d.train.images:dtype())
      assert.equal(5, d.classes)
      assert.same({0, 4}, d.train.labels:totable())
      local mean, variance = 0, 0
      for i = 0, 46, 2 do mean = mean + i / 50 / 24 end
      for i = 0, 46, 2 do variance = variance + (i / 50 - mean) ^ 2 / 24 end
      assert.is_true(math.abs(d.mean[1] - mean) < 1e-6)
      assert.is_true(math.abs(d.std[1] - math.sqrt(variance)) < 1e-6)
    end)
  end)

  it("are images [n,c,h,w] or [n,h,w] where option layout says so", function()
    local x = whole(2, 3, 2, 5)
    with_arrays({X = x:to "u8", y = atomo.tensor({0, 1}, "u8")}, function(path)
      local images = data.open(path, {layout = "NCHW"}).train.images
      assert.same({2, 2, 5, 3}, images:shape())
      assert.same(x:permute(1, 3, 4, 2):reshape(60):totable(), images:reshape(60):totable())
      fails({"X is [2,3,2,5]", "expected 3 dimensions by layout = 'NHW'"}, data.open, path, {layout = "NHW"})
      fails("layout is 'CHW', expected NHWC, NCHW or NHW", data.open, path, {layout = "CHW"})
    end)
    with_arrays({X = whole(2, 3, 4):to "u8", y = atomo.tensor({0, 1}, "u8")}, function(path)
      assert.same({3, 4, 1}, data.open(path).shape)
    end)
    with_arrays({X = whole(2, 3, 4), y = atomo.tensor({0, 1}, "u8")}, function(path)
      assert.same({3, 4}, data.open(path).shape)
      assert.same({3, 4, 1}, data.open(path, {layout = "NHW"}).shape)
    end)
    with_arrays({X = atomo.zeros({2, 3, 32, 32}, "u8"), y = atomo.tensor({0, 1}, "u8")}, function(path)
      fails({"X is [2,3,32,32]", "say layout = 'NCHW'", "return require(\"atomo\").data.open(PATH, {layout = 'NCHW'})"},
        data.open, path)
    end)
  end)

  it("are samples of any shape, with classes or numbers", function()
    with_arrays({X = whole(3, 2), y = atomo.tensor {{0.5}, {1}, {2}}}, function(path)
      local d = data.open(path)
      assert.is_nil(d.classes)
      assert.same({2}, d.shape)
      assert.same({{0, 1}, {2, 3}, {4, 5}}, d.train.x:totable())
      assert.same({{0.5}, {1}, {2}}, d.train.y:totable())
    end)
    with_arrays({X_train = whole(3, 2), y_train = atomo.tensor({0, 2, 1}, "u8"), X_test = whole(1, 2),
      y_test = atomo.tensor({1}, "u8")}, function(path)
      local d = data.open(path)
      assert.equal(3, d.classes)
      assert.equal(3, d.test.classes)
      assert.equal(1, d.test.n)
      fails("option test is for data without one", data.open, path, {test = 0.5})
    end)
    with_arrays({["train/X"] = nil, X_train = whole(3, 2), y_train = atomo.zeros(3), X_test = whole(1, 4),
      y_test = atomo.zeros(1)}, function(path)
      fails({"training samples are f32 2, test samples f32 4"}, data.open, path)
    end)
  end)

  it("are refused if they do not fit", function()
    with_arrays({X = whole(3, 2), y = atomo.zeros(4)}, function(path)
      fails({"X is [3,2], y is [4], expected as many samples"}, data.open, path)
    end)
    with_arrays({X = whole(3, 2), y = atomo.tensor {0, -1, 1}}, function(path)
      fails("y has the class -1", data.open, path)
    end)
    with_arrays({X = whole(3, 2), y = atomo.tensor {0, 0 / 0, 1}}, function(path) -- not numbers to predict
      fails("y [3] has 1 entries that are NaN or Inf, the first in sample 2, expected none", data.open, path)
    end)
    with_arrays({X = atomo.tensor {{1, 2}, {3, 4}, {1 / 0, 0 / 0}}, y = atomo.zeros(3)}, function(path)
      fails("X [3,2] has 2 entries that are NaN or Inf, the first in sample 3, expected none", data.open, path)
    end)
    with_arrays({X = whole(3, 2)}, function(path) fails("/X.npy has no y.npy beside it", data.open, path) end)
    folders.with({["X.npy"] = "\147NUMPY\1\0\200\0{", ["y.npy"] = ""}, function(path)
      fails({"/X.npy", "header of 200 bytes"}, data.open, path)
    end)
  end)
end)

describe("an .npz", function()
  local function with_npz(name, fn)
    folders.with({["a.npz"] = unhex(golden.npzs[name])}, function(path) fn(path .. "/a.npz") end)
  end

  it("has x and y, or these for training and test", function()
    with_npz("plain", function(path)
      local d = data.open(path)
      assert.same({2, 0, 1, 2}, d.train.labels:totable())
      assert.equal(mat_x, bytes_of(d.train.images))
    end)
    with_npz("keras", function(path)
      local d = data.open(path)
      assert.same({3, 4, 1}, d.shape)
      assert.equal(3, d.train.n)
      assert.same({1, 1}, d.test.labels:totable())
      assert.equal(2, data.open(path, {only = "test"}).test.n)
    end)
    with_npz("numbers", function(path)
      local d = data.open(path)
      assert.same({{0, 1}, {2, 3}, {4, 5}}, d.train.x:totable())
      assert.same({0.5, 1, 2}, d.train.y:totable())
      assert.equal(1, data.open(path, {test = 0.4}).test.n)
    end)
  end)

  it("without them is refused with the names that it has", function()
    with_npz("other", function(path) fails({"has the arrays a, b", "expected x and y"}, data.open, path) end)
  end)
end)

describe("a MAT-file", function()
  local mats = {}
  for name, text in pairs(golden.mats) do mats[name] = unhex(text) end

  it("of SVHN has images and the digit 0 for label 10", function()
    folders.with({["train_32x32.mat"] = mats.svhn, ["test_32x32.mat"] = mats.plain}, function(path)
      local d = data.open(path)
      assert.equal("SVHN", d.name)
      assert.equal(mat_x, bytes_of(d.train.images))
      assert.same({0, 1, 2, 9}, d.train.labels:totable())
      assert.equal(mat_x, bytes_of(d.test.images))
      assert.equal("0", d.names[1])
      assert.equal(10, d.classes)
      assert.equal(4, data.open(path .. "/train_32x32.mat").train.n)
    end)
  end)

  it("of another form is refused with the reason", function()
    local f = require "atomo.ffi"
    local T = require "atomo.tensor"
    local function read(path, name) return function() f.check(f.C.atomo_mat_read(path, name, T.out())) end end
    folders.with({["odd.mat"] = mats.odd, ["cut.mat"] = mats.svhn:sub(1, -20), ["short.mat"] = mats.plain:sub(1, 60),
      ["hdf.mat"] = "MATLAB 7.3 MAT-file" .. (" "):rep(200), ["big.mat"] = mats.plain:sub(1, 126) .. "MI" ..
      mats.plain:sub(129), ["train_32x32.mat"] = mats.plain:gsub("\10\1\2\9", "\11\1\2\9")}, function(path)
      path = path .. "/"
      fails({"odd.mat", "'s' is of class struct"}, read(path .. "odd.mat", "s"))
      fails({"odd.mat", "'t' is of class char"}, read(path .. "odd.mat", "t"))
      fails({"odd.mat", "'z' has complex numbers"}, read(path .. "odd.mat", "z"))
      fails({"odd.mat", "'v': element 3", "does not fit f32"}, read(path .. "odd.mat", "v"))
      fails({"odd.mat has no variable 'X', it has s, t, z, v"}, data.open, path .. "odd.mat")
      fails({"cut.mat", "expected a variable (type 14 or 15) of at most"}, data.open, path .. "cut.mat")
      fails({"short.mat ends at offset 60"}, data.open, path .. "short.mat")
      fails({"hdf.mat is of version 7.3", "-v7"}, data.open, path .. "hdf.mat")
      fails({"big.mat", "little-endian"}, data.open, path .. "big.mat")
      fails({"label 11 of image 1, expected 1 to 10"}, data.open, path)
    end)
  end)
end)
