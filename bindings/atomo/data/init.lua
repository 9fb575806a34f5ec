--- Data sets (stage 1): CIFAR-10, CIFAR-100 and MNIST from their files, and the built-in synthetic set.
-- A data set is {name=, train=set, test=set, classes=, names=, shape={h,w,c}, mean=, std=}; a set is
-- {images = u8 [n,h,w,c], labels = i32 [n] from 0, n=, classes=}. atomo.data.loader (loader.lua) makes its batches.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {loader = require "atomo.data.loader"}

local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- Makes a set from tensors: images u8 [n,h,w,c], labels i32 [n] with 0 <= label < classes. Raises if they do not fit.
---@param images atomo.Tensor
---@param labels atomo.Tensor
---@param classes integer?  default: one more than the largest label
function M.set(images, labels, classes)
  T.expect(images, "set: images", "u8")
  T.expect(labels, "set: labels", "i32")
  if images:dim() ~= 4 or labels:dim() ~= 1 or images:size(1) ~= labels:size(1) then
    raise(("set: images %s, labels %s, expected [n,h,w,c] and [n]"):format(T.shape_text(images), T.shape_text(labels)))
  end
  if classes ~= nil then classes = number.expect_whole(classes, "set: classes", 1, 2 ^ 31 - 1) end
  local p, n, most = labels:data(), labels:numel(), -1
  for i = 0, n - 1 do
    if p[i] < 0 or (classes and p[i] >= classes) then
      raise(("set: label %d of image %d, expected 0 to %s"):format(
        p[i], i + 1, classes and classes - 1 or "classes - 1"))
    end
    most = math.max(most, p[i])
  end
  return {images = images, labels = labels, n = n, classes = classes or most + 1}
end

--- Returns mean and standard deviation of each channel of u8 images, divided by 255.
---@return number[] mean
---@return number[] std
function M.channel_stats(images)
  T.expect(images, "channel_stats: images", "u8")
  local mean, std, m, s = ffi.new "double[8]", ffi.new "double[8]", {}, {}
  check(C.atomo_channel_stats(images.h, mean, std))
  for i = 1, images:size(-1) do m[i], s[i] = mean[i - 1], std[i - 1] end
  return m, s
end

-- ---- synthetic ---------------------------------------------------------------------------------------------------

local synthetic_names = {
  "striped disc", "checked disc", "striped ring", "checked ring", "striped square", "checked square",
  "striped triangle", "checked triangle", "striped cross", "checked cross",
}

local function synthetic_set(seed, split, n)
  return T.outside_scope(function()
    local images, labels = T.out(), T.out()
    check(C.atomo_synthetic(seed, split, 0, n, images, labels))
    return {images = T.wrap(images[0]), labels = T.wrap(labels[0]), n = n, classes = 10}
  end)
end

local function count_option(options, key, default)
  local v = options[key] == nil and default or options[key]
  if not number.of(v) then raise(("synthetic: %s is a %s, expected a number"):format(key, type(v))) end
  return number.of(v)
end

--- Makes the built-in set: generated 32x32x3 images of ten classes. The same seed gives the same bits on every machine.
---@param options table?  train=5000, test=1000 (numbers of images), seed=0
function M.synthetic(options)
  options = options or {}
  for key in pairs(options) do
    if key ~= "train" and key ~= "test" and key ~= "seed" then
      raise(("synthetic: unknown option '%s', expected train, test or seed"):format(tostring(key)))
    end
  end
  local seed = count_option(options, "seed", 0)
  local train = synthetic_set(seed, 0, count_option(options, "train", 5000))
  local test = synthetic_set(seed, 1, count_option(options, "test", 1000))
  local mean, std = M.channel_stats(train.images)
  return {name = "synthetic", train = train, test = test, classes = 10, names = synthetic_names, shape = {32, 32, 3},
    mean = mean, std = std}
end

-- ---- files -------------------------------------------------------------------------------------------------------

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

local function wants(what, options, split)
  local only = options and options.only
  if only ~= nil and only ~= "train" and only ~= "test" then
    raise(("%s: only = '%s', expected 'train' or 'test'"):format(what, tostring(only)))
  end
  return only == nil or only == split
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
function M.cifar10(dir, options)
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
function M.cifar100(dir, options)
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
    return M.set(images, set.labels:to "i32", 10)
  end)
end

--- Reads MNIST, or a set in its format (Fashion-MNIST, ...): IDX files, raw or .gz.
---@param dir string
---@param options table?  only = "train" or "test"
function M.mnist(dir, options)
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

-- ---- recognising a set -------------------------------------------------------------------------------------------

--- A folder with any of these files holds a set of that kind.
local kinds = {
  {read = "cifar10", files = {"data_batch_1.bin", "test_batch.bin"}},
  {read = "cifar100", files = {"train.bin", "test.bin"}},
  {read = "mnist", files = {"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte",
    "t10k-images-idx3-ubyte.gz"}},
}
local inner_folders = {"", "/cifar-10-batches-bin", "/cifar-100-binary", "/MNIST/raw"}

--- Reads the data set in a folder, recognised by its files. Without a folder, or with "synthetic": the synthetic set.
---@param dir string?
---@param options table?  only = "train" or "test" for files; train=, test=, seed= for the synthetic set
function M.open(dir, options)
  if dir == nil or dir == "" or dir == "synthetic" then return M.synthetic(options) end
  if type(dir) ~= "string" then raise(("data.open: folder is a %s, expected a path"):format(type(dir))) end
  dir = #dir > 1 and dir:gsub("/+$", "") or dir
  for _, inner in ipairs(inner_folders) do
    for _, kind in ipairs(kinds) do
      for _, name in ipairs(kind.files) do
        if exists(dir .. inner .. "/" .. name) then return M[kind.read](dir .. inner, options) end
      end
    end
  end
  local file, why = io.open(dir, "rb")
  if file then file:close() end
  raise(("data.open: %s; expected the files of CIFAR-10 (data_batch_1.bin), CIFAR-100 (train.bin) or MNIST "
    .. "(train-images-idx3-ubyte.gz) in it"):format(why or dir .. " has no data set"))
end

return M
