--- CIFAR-10, CIFAR-100 and sets in MNIST's format, from their files (stage 1).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local sets = require "atomo.data.set"
local files = require "atomo.data.files"
local check_options = require "atomo.tensor.check_options"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

local exists, wants = files.exists, files.wants
local known = {only = true}

local function read_cifar(paths, kind)
  return T.outside_scope(function()
    local images, labels, coarse = T.out(), T.out(), T.out()
    local list = ffi.new("const char *[?]", #paths, paths)
    check(C.atomo_cifar_read(list, #paths, kind, images, labels, coarse))
    local set = {images = T.wrap(images[0]), labels = T.wrap(labels[0]), classes = kind}
    if kind == 100 then set.coarse = T.wrap(coarse[0]) end
    set.n = set.labels:numel()
    return set
  end)
end

--- Returns the lines of a text file; nil if it is absent or does not have `count` lines.
local function read_names(path, count)
  local file = io.open(path)
  if not file then return nil end
  local names = {}
  for line in file:lines() do
    line = line:match "^%s*(.-)%s*$"
    if line ~= "" then names[#names + 1] = line end
  end
  file:close()
  return #names == count and names or nil
end

local function no_such(what, path, url)
  raise(("%s: %s is missing; the archive is at %s"):format(what, path, url))
end

local cifar10_names = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}
local cifar_url = "https://www.cs.toronto.edu/~kriz/"

--- Returns the paths data_batch_1.bin, data_batch_2.bin, ...; raises if a number is missing.
local function cifar10_train_files(dir)
  local paths, last = {}, 0
  for i = 1, 99 do
    local path = ("%s/data_batch_%d.bin"):format(dir, i)
    if exists(path) then
      paths[#paths + 1] = path
      last = i
    end
  end
  if #paths < last or last == 0 then
    local i = 1
    while exists(("%s/data_batch_%d.bin"):format(dir, i)) do i = i + 1 end
    no_such("cifar10", ("%s/data_batch_%d.bin"):format(dir, i), cifar_url .. "cifar-10-binary.tar.gz")
  end
  return paths
end

--- Reads CIFAR-10, binary version: data_batch_*.bin and test_batch.bin, each with any number of complete records.
---@param dir string
---@param options table?  only = "train" or "test"
---@return table data: {name=, train = set, test = set, classes=, names=, shape=, mean=, std=}
---@usage pcall(atomo.data.cifar10, "missing") --> false
function M.cifar10(dir, options)
  check_options.check("cifar10", options or {}, known)
  local d = {name = "CIFAR-10", dir = dir, classes = 10, shape = {32, 32, 3},
    names = read_names(dir .. "/batches.meta.txt", 10) or cifar10_names,
    mean = {0.4914, 0.4822, 0.4465}, std = {0.2470, 0.2435, 0.2616}}
  if wants("cifar10", options, "train") then d.train = read_cifar(cifar10_train_files(dir), 10) end
  if wants("cifar10", options, "test") then
    local path = dir .. "/test_batch.bin"
    if not exists(path) then no_such("cifar10", path, cifar_url .. "cifar-10-binary.tar.gz") end
    d.test = read_cifar({path}, 10)
  end
  return d
end

--- Reads CIFAR-100, binary version: train.bin and test.bin. set.labels are the fine labels, set.coarse the coarse ones.
---@param dir string
---@param options table?  only = "train" or "test"
---@return table data, as of cifar10
---@usage pcall(atomo.data.cifar100, "missing") --> false
function M.cifar100(dir, options)
  check_options.check("cifar100", options or {}, known)
  local d = {name = "CIFAR-100", dir = dir, classes = 100, shape = {32, 32, 3},
    names = read_names(dir .. "/fine_label_names.txt", 100),
    coarse_names = read_names(dir .. "/coarse_label_names.txt", 20),
    mean = {0.5071, 0.4865, 0.4409}, std = {0.2673, 0.2564, 0.2762}}
  for _, split in ipairs {"train", "test"} do
    if wants("cifar100", options, split) then
      local path = ("%s/%s.bin"):format(dir, split)
      if not exists(path) then no_such("cifar100", path, cifar_url .. "cifar-100-binary.tar.gz") end
      d[split] = read_cifar({path}, 100)
    end
  end
  return d
end

local function read_idx(path, ndim)
  return T.outside_scope(function()
    local out = T.out()
    check(C.atomo_idx_read(path, ndim, out))
    return T.wrap(out[0])
  end)
end

local mnist_url = "https://ossci-datasets.s3.amazonaws.com/mnist/"

local function mnist_file(dir, name)
  for _, ending in ipairs {"", ".gz"} do
    if exists(dir .. "/" .. name .. ending) then return dir .. "/" .. name .. ending end
  end
  return nil, ("%s/%s[.gz]"):format(dir, name)
end

local function mnist_set(dir, stem)
  local set = {}
  for _, part in ipairs {{"images", "-images-idx3-ubyte", 3}, {"labels", "-labels-idx1-ubyte", 1}} do
    local path, missing = mnist_file(dir, stem .. part[2])
    if not path then no_such("mnist", missing, mnist_url .. stem .. part[2] .. ".gz") end
    set[part[1]] = read_idx(path, part[3])
    set[part[1] .. "_path"] = path
  end
  local n = set.images:size(1)
  if set.labels:size(1) ~= n then
    raise(("mnist: %s has %d images, %s has %d labels"):format(set.images_path, n, set.labels_path, set.labels:size(1)))
  end
  if set.images:numel() == 0 then
    raise(("mnist: %s holds images %s, expected one or more, not empty"):format(
      set.images_path, T.shape_text(set.images)))
  end
  return T.outside_scope(function()
    local images = set.images:view(n, set.images:size(2), set.images:size(3), 1)
    return sets.set(images, set.labels:to "i32", 10)
  end)
end

--- Reads MNIST, or a set in its format (Fashion-MNIST, ...): IDX files, raw or .gz.
---@param dir string
---@param options table?  only = "train" or "test"
---@return table data, as of cifar10
---@usage pcall(atomo.data.mnist, "missing") --> false
function M.mnist(dir, options)
  check_options.check("mnist", options or {}, known)
  local d = {name = "MNIST", dir = dir, classes = 10, shape = {28, 28, 1}, mean = {0.1307}, std = {0.3081},
    names = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}}
  for _, split in ipairs {"train", "test"} do
    local stem = split == "test" and "t10k" or split
    if wants("mnist", options, split) then
      d[split] = mnist_set(dir, stem)
      d.shape = {d[split].images:size(2), d[split].images:size(3), 1}
    end
  end
  return d
end

return M
