--- Recognises the format of a path and reads it (stage 1): a folder or file of one of the formats below, or a Lua file
-- that returns data.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local O = require "atomo.tensor.check_options"
local arrays = require "atomo.data.arrays"
local classic = require "atomo.data.classic"
local csv = require "atomo.data.csv"
local files = require "atomo.data.files"
local folder = require "atomo.data.folder"
local sets = require "atomo.data.set"
local synthetic = require "atomo.data.synthetic"
local raise = f.raise

--- A folder with any of these files holds a set of that kind.
local kinds = {
  {read = "cifar10", files = {"data_batch_1.bin", "test_batch.bin"}},
  {read = "cifar100", files = {"train.bin", "test.bin"}},
  {read = "mnist", files = {"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte",
    "t10k-images-idx3-ubyte.gz"}},
}
local inner_folders = {"", "/cifar-10-batches-bin", "/cifar-100-binary", "/MNIST/raw"}

local common = {only = true, test = true, seed = true}

local function check_options(options, ...) O.check("data.open", options, common, ...) end

-- ---- sources: {read = function(options, like) -> part, options = table of rules} -----------------------------------

local function of_folder(path)
  return {options = folder.options, read = function(options, like) return folder.read(path, options, like) end}
end

local function of_arrays(paths)
  return {options = arrays.options, read = function(options) return arrays.from_npy(paths, options) end}
end

local function of_mat(path)
  return {options = arrays.options, read = function(options) return arrays.from_mat(path, options) end}
end

local function of_csv(path)
  return {options = csv.options, read = function(options, like) return csv.read(path, options, like) end}
end

--- An .npz has one part or both. If it has only x and y, they are the part that the options select.
local function of_npz(path)
  local parts, options_of
  local function read(options, split)
    if not parts or options_of ~= options then parts, options_of = arrays.from_npz(path, options), options end
    return parts[split]
  end
  return {options = arrays.options, read = function(options) return read(options, "train") end,
    test = function(options) return read(options, "test") end}
end

--- Returns the source in a folder or file that holds one part, or nil.
local function one_part(path)
  if not files.is_folder(path) then return nil end
  local paths = arrays.npy_files(path, "")
  if paths then return of_arrays(paths) end
  return folder.recognise(path) and of_folder(path) or nil
end

local test_names = {"test", "val", "valid", "validation"}

--- Files with the part in their names: train.csv and test.csv, train_32x32.mat, X_train.npy.
local function named_parts(dir)
  for _, kind in ipairs {{".npz", of_npz}, {".csv", of_csv}, {".tsv", of_csv}, {"_32x32.mat", of_mat}} do
    local train, test = dir .. "/train" .. kind[1], files.first(dir, {"test" .. kind[1], "val" .. kind[1]})
    if files.exists(train) or test then
      return files.exists(train) and kind[2](train) or nil, test and kind[2](test) or nil
    end
  end
  local train, test = arrays.npy_files(dir, "_train"), arrays.npy_files(dir, "_test")
  return train and of_arrays(train), test and of_arrays(test)
end

--- Folders named train and test (or val), each with one part.
local function inner_parts(dir)
  local train = one_part(dir .. "/train")
  if not train then return nil end
  for _, name in ipairs(test_names) do
    local test = one_part(dir .. "/" .. name)
    if test then return train, test end
  end
  return train
end

local by_ending = {npz = of_npz, csv = of_csv, tsv = of_csv, mat = of_mat}

--- Returns the sources of the training and the test part at a path; nil if nothing is recognised.
local function locate(path)
  if not files.is_folder(path) then
    local make = by_ending[(path:match "%.(%w+)$" or ""):lower()]
    return make and make(path)
  end
  local train, test = named_parts(path)
  if not train and not test then train, test = inner_parts(path) end
  if not train and not test then train = one_part(path) end
  return train, test
end

-- ---- data -----------------------------------------------------------------------------------------------------------

local function same_shape(path, a, b)
  local x, y = a.images or a.x, b.images or b.x
  for i = 2, math.max(x:dim(), y:dim()) do
    if x:dim() ~= y:dim() or x:size(i) ~= y:size(i) or x:dtype() ~= y:dtype() then
      raise(("data: %s: training samples are %s %s, test samples %s %s, expected the same shape and dtype"):format(path,
        x:dtype(), table.concat(x:shape(), "x", 2), y:dtype(), table.concat(y:shape(), "x", 2)))
    end
  end
end

--- Returns the training part and the test part, as far as the options select them. The test part is read from its
--- files, or held out of the training part (option test). The training part is also read if only the test part is
--- selected, which must have the same classes.
local function read_parts(path, train, test, options)
  local wants_train, wants_test = files.wants("data.open", options, "train"), files.wants("data.open", options, "test")
  local a, b = nil, nil
  if train and (wants_train or wants_test) then a = train.read(options) end
  local has_test = test ~= nil or train.test ~= nil and train.test(options) ~= nil
  if has_test and options.test ~= nil then
    raise(("data.open: %s has a test part, option test is for data without one"):format(path))
  end
  if has_test and wants_test then b = test and test.read(options, a) or train.test(options) end
  if a and b then same_shape(path, a.set, b.set) end
  if options.seed ~= nil and options.test == nil then
    raise "data.open: seed chooses the samples that option test holds out, and there is no option test"
  end
  if a and options.test ~= nil then
    local rest, held_out = sets.split(a.set, options.test, options.seed)
    a.set, b = rest, {set = held_out}
  end
  return a, b, wants_train, wants_test
end

local function read(path, train, test, options)
  check_options(options, (train or test).options)
  local a, b, wants_train, wants_test = read_parts(path, train, test, options)
  if options.standardise then csv.standardise(a or b, a and b) end
  local head = a or b
  local d = {name = head.name or path:match "[^/]+$" or path, dir = path, names = head.names, columns = head.columns,
    label = head.label, mean = head.mean, std = head.std, train = wants_train and a and a.set or nil,
    test = wants_test and b and b.set or nil}
  if not d.train and not d.test then
    raise(("data.open: %s has no %s part%s"):format(path, options.only, options.only == "test" and
      ": test = 0.1 holds out a tenth of the training set" or ""))
  end
  return sets.describe(d)
end

local function check_own(path, name, set)
  local kind = sets.kind(set)
  if not kind then
    raise(("data: %s: %s is %s, expected a set: {images=, labels=}, {x=, y=}, or one with size() and get(i)"):format(
      path, name, type(set) == "table" and (type(set.epoch) == "function" and "a loader" or "a table without these") or
      "a " .. type(set)))
  end
end

--- Runs a Lua file that returns data, or a function(options) that returns data.
local function from_lua(path, options)
  local chunk, problem = loadfile(path)
  if not chunk then raise(("data: %s"):format(problem)) end
  local d = chunk()
  if type(d) == "function" then d = d(options)
  elseif options and next(options) ~= nil then
    raise(("data.open: %s returns no function, which could take the option %s"):format(path, brief(next(options))))
  end
  if type(d) ~= "table" or not (d.train or d.test) then
    raise(("data: %s returns a %s, expected {train = set, test = set?}, or a function that returns this"):format(path,
      type(d) == "table" and "table without train and test" or type(d)))
  end
  if d.train ~= nil then check_own(path, "train", d.train) end
  if d.test ~= nil then check_own(path, "test", d.test) end
  d.name = d.name or path:match "[^/]+$"
  return sets.describe(d)
end

local function refuse(path)
  local file, why = io.open(path, "rb")
  if file then file:close() end
  raise(("data.open: %s; expected the files of CIFAR-10 (data_batch_1.bin), CIFAR-100 (train.bin), MNIST "
    .. "(train-images-idx3-ubyte.gz) or SVHN (train_32x32.mat) in it, X.npy and y.npy, class folders of "
    .. "images, folders train and test with these, or a file .npz, .csv, .mat or .lua"):format(
    why or path .. " has no data set"))
end

--- Reads the data at a path, recognised by its files. Without a path, or with "synthetic": the synthetic set.
---   FOLDER        CIFAR-10, CIFAR-100, MNIST, SVHN files; X.npy and y.npy; class folders of images; train and test
---   FILE          .npz, .csv, .tsv, .mat; .lua: returns data, or a function(options) that returns data
---@param path string?
---@param options table?  only = "train" or "test"; test = the fraction to hold out if there is no test part, seed=0 of
--- that; of images size= (32 or {h,w}) and channels= (1 or 3); of arrays layout= ("NHWC", "NCHW", "NHW"); of tables
--- label=, task=, separator=, standardise=; train=, test=, seed= (numbers of images) for the synthetic set
---@return table data, as of cifar10
---@usage atomo.data.open("synthetic", {train = 8, test = 8}).name --> synthetic
return function(path, options)
  if path == nil or path == "" or path == "synthetic" then return synthetic.synthetic(options) end
  if type(path) ~= "string" then raise(("data.open: folder is a %s, expected a path"):format(type(path))) end
  path = #path > 1 and path:gsub("/+$", "") or path
  for _, inner in ipairs(inner_folders) do
    for _, kind in ipairs(kinds) do
      if files.first(path .. inner, kind.files) then return classic[kind.read](path .. inner, options) end
    end
  end
  if path:find "%.lua$" then return from_lua(path, options) end
  local train, test = locate(path)
  if not train and not test then return refuse(path) end
  return read(path, train, test, options or {})
end
