-- Data sets: CIFAR, MNIST and synthetic; damaged files; the shared files where they are present.
local atomo = require "atomo"
local data = atomo.data
local shared = require "support.root" .. "../shared/data/"
local write = require("support.shell").write

local function sh(command)
  local status = os.execute(command)
  assert(status == 0, ("%s: status %s"):format(command, tostring(status)))
end

local function folder()
  local path = os.tmpname()
  os.remove(path)
  sh("mkdir " .. path)
  return path
end

--- n records of a CIFAR file: labels i % classes, the byte at (plane, pixel) is (i + plane * 50 + pixel) % 256.
local function records(n, labels)
  local parts, byte = {}, {}
  for i = 0, n - 1 do
    byte[#byte + 1] = labels(i)
    for plane = 0, 2 do
      for pixel = 0, 1023 do parts[pixel + 1] = string.char((i + plane * 50 + pixel) % 256) end
      byte[#byte + 1] = table.concat(parts)
    end
  end
  return table.concat(byte)
end
local function ten(i) return string.char(i % 10) end
local function hundred(i) return string.char(i % 20, i % 100) end

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

describe("a Lua file", function()
  it("returns data, or a function of the options that does", function()
    local dir = folder()
    write(dir .. "/a.lua", [[return function(o)
      local atomo = require "atomo"
      local images = atomo.ones({3, 2, 2, 1}, "u8")
      return {train = atomo.data.set(images, atomo.tensor({0, o.last, 1}, "i32")), names = {"a", "b", "c"}}
    end]])
    write(dir .. "/b.lua", "return {train = require('atomo').data.synthetic({train = 5, test = 1}).train}")
    local d, other = data.open(dir .. "/a.lua", {last = 2}), data.open(dir .. "/b.lua")
    assert.same({"a.lua", 3, {2, 2, 1}, {1 / 255}, {1}}, {d.name, d.classes, d.shape, d.mean, d.std})
    assert.same({32, 32, 3}, other.shape)
    assert.error_matches(function() data.open(dir .. "/b.lua", {last = 2}) end, "returns no function.*option last")
    sh("rm -r " .. dir)
  end)
end)

describe("CIFAR files", function()
  local dir
  before_each(function() dir = folder() end)
  after_each(function() sh("rm -r " .. dir) end)

  it("are read across files of any number of records, to N,H,W,C", function()
    write(dir .. "/data_batch_1.bin", records(3, ten))
    write(dir .. "/data_batch_2.bin", records(70, ten))
    write(dir .. "/test_batch.bin", records(2, ten))
    local d = data.open(dir .. "/")
    assert.equal("CIFAR-10", d.name)
    assert.equal(73, d.train.n)
    assert.equal(2, d.test.n)
    assert.equal("truck", d.names[10])
    assert.same({73, 32, 32, 3}, d.train.images:shape())
    for _, case in ipairs {{1, 0}, {3, 2}, {4, 0}, {73, 69}} do
      local image, i = case[1], case[2]
      assert.equal(i % 10, d.train.labels:get(image))
      for _, at in ipairs {{1, 1, 1}, {5, 9, 2}, {32, 32, 3}} do
        local want = (i + (at[3] - 1) * 50 + (at[1] - 1) * 32 + at[2] - 1) % 256
        assert.equal(want, d.train.images:get(image, at[1], at[2], at[3]))
      end
    end
  end)

  it("of CIFAR-100 keep both labels", function()
    write(dir .. "/train.bin", records(25, hundred))
    write(dir .. "/test.bin", records(1, hundred))
    local d = data.open(dir)
    assert.equal("CIFAR-100", d.name)
    assert.equal(24, d.train.labels:get(25))
    assert.equal(4, d.train.coarse:get(25))
    assert.equal(24, d.train.images:get(25, 1, 1, 1))
  end)

  it("are refused when damaged: file, offset, found, expected", function()
    local good = records(2, ten)
    local function refuse(text, pattern)
      write(dir .. "/data_batch_1.bin", text)
      local ok, message = pcall(data.cifar10, dir, {only = "train"})
      assert.is_false(ok)
      assert.matches(pattern, message)
      assert.matches("data_batch_1.bin", message, 1, true)
    end
    refuse("", "is empty, expected records of 3073 bytes")
    refuse(good:sub(1, -2), "is 6145 bytes, expected a multiple of 3073: at offset 3073 record 2 has 3072 bytes")
    refuse(good .. "\0", "at offset 6146 record 3 has 1 bytes")
    refuse(good:sub(1, 3073) .. "\10" .. good:sub(3075), "offset 3073: label 10, expected 0 to 9")
    write(dir .. "/train.bin", string.char(20, 0) .. ("x"):rep(3072))
    assert.error_matches(function() data.cifar100(dir, {only = "train"}) end,
      "offset 0: coarse label 20, expected 0 to 19")
    write(dir .. "/train.bin", string.char(19, 100) .. ("x"):rep(3072))
    assert.error_matches(function() data.cifar100(dir, {only = "train"}) end, "offset 1: label 100, expected 0 to 99")
  end)

  it("that are missing are named, with where to get them", function()
    write(dir .. "/data_batch_1.bin", records(1, ten))
    write(dir .. "/data_batch_3.bin", records(1, ten))
    assert.error_matches(function() data.cifar10(dir) end, "data_batch_2.bin is missing; the archive is at http")
    os.remove(dir .. "/data_batch_3.bin")
    assert.error_matches(function() data.cifar10(dir) end, "test_batch.bin is missing")
    assert.error_matches(function() data.cifar100(dir) end, "train.bin is missing")
    assert.error_matches(function() data.open "/nowhere" end,
      "/nowhere: No such file or directory; expected the files of CIFAR")
    assert.error_matches(function() data.open "/dev" end, "/dev has no data set")
    assert.error_matches(function() data.cifar10(dir, {only = "val"}) end, "only = 'val', expected 'train' or 'test'")
    assert.error_matches(function() data.open(dir, {onyl = "test"}) end, "cifar10: unknown option 'onyl'")
    sh(("rm %s/*; mkdir %s/data_batch_1.bin"):format(dir, dir))
    assert.error_matches(function() data.cifar10(dir) end, "is not a regular file")
  end)
end)

describe("IDX files", function()
  local dir
  before_each(function() dir = folder() end)
  after_each(function() sh("rm -r " .. dir) end)

  local images = "\0\0\8\3\0\0\0\2\0\0\0\3\0\0\0\4" .. ("abcdefghijklmnopqrstuvwx")
  local labels = "\0\0\8\1\0\0\0\2\7\3"

  local function refuse(image_text, label_text, pattern)
    write(dir .. "/t10k-images-idx3-ubyte", image_text)
    write(dir .. "/t10k-labels-idx1-ubyte", label_text)
    assert.error_matches(function() data.mnist(dir, {only = "test"}) end, pattern)
  end

  it("are read raw and packed", function()
    for _, pack in ipairs {false, true} do
      write(dir .. "/t10k-images-idx3-ubyte", images)
      write(dir .. "/t10k-labels-idx1-ubyte", labels)
      if pack then sh("gzip -f " .. dir .. "/*") end
      local d = data.mnist(dir, {only = "test"})
      assert.same({2, 3, 4, 1}, d.test.images:shape())
      assert.equal(("m"):byte(), d.test.images:get(2, 1, 1, 1))
      assert.same({7, 3}, d.test.labels:totable())
      assert.same({3, 4, 1}, d.shape)
      sh("rm " .. dir .. "/*")
    end
  end)

  it("are refused when damaged", function()
    refuse("\0\0\8\1" .. images:sub(5), labels,
      "offset 0: magic 0x00000801, IDX of u8, 1 dimensions, expected u8, 3 dimensions")
    for type, name in pairs {["\9"] = "i8", ["\11"] = "i16", ["\12"] = "i32", ["\13"] = "f32", ["\14"] = "f64"} do
      refuse("\0\0" .. type .. images:sub(4), labels, "IDX of " .. name .. ", 3 dimensions, expected u8, 3 dimensions")
    end
    for _, magic in ipairs {"\0\0\10\3", "\1\0\8\3", "\3\8\0\0"} do
      refuse(magic .. images:sub(5), labels, "offset 0: magic 0x%x+, expected 0x00000803 %(IDX of u8, 3 dimensions%)")
    end
    refuse("", labels, "ends at offset 0, expected 4 more bytes")
    refuse(images:sub(1, -2), labels, "is 39 bytes, expected 40 by its header %[2,3,4%]")
    refuse(images .. "x", labels, "is 41 bytes, expected 40 by its header %[2,3,4%]")
    refuse(images:sub(1, 4) .. "\255\255\255\255" .. images:sub(9), labels,
      "size 4294967295 needs more bytes than a file of 40")
    refuse(images:sub(1, 10), labels, "ends at offset 10, expected 6 more bytes")
    refuse(images, "\0\0\8\1\0\0\0\3\7\3\1", "2 images, .* 3 labels")
    refuse(images, "\0\0\8\1\0\0\0\2\7\10", "label 10 of image 2, expected 0 to 9")
    refuse(images, "\0\0\8\1\0\0\0\0", "2 images, .* 0 labels")
    refuse("\0\0\8\3\0\0\0\0\0\0\0\3\0\0\0\4", "\0\0\8\1\0\0\0\0",
      "holds images %[0,3,4%], expected one or more, not empty")
    refuse("\0\0\8\3\0\0\0\2\0\0\0\0\0\0\0\4", labels, "holds images %[2,0,4%], expected one or more")
    assert.error_matches(function() data.mnist(dir) end, "train%-images%-idx3%-ubyte%[%.gz%] is missing")
  end)

  it("are refused when their packed bytes are damaged", function()
    local path = dir .. "/t10k-images-idx3-ubyte"
    os.remove(path)
    local function packed(bytes)
      write(path, bytes)
      sh("gzip -nf " .. path)
      local file = assert(io.open(path .. ".gz", "rb"))
      local all = file:read "*a"
      file:close()
      return all
    end
    local function refuse_packed(bytes, pattern)
      write(path .. ".gz", bytes)
      assert.error_matches(function() data.mnist(dir, {only = "test"}) end, "idx: .*ubyte%.gz" .. pattern)
    end
    write(dir .. "/t10k-labels-idx1-ubyte", labels)
    local good = packed(images)
    for cut = 2, #good - 1 do refuse_packed(good:sub(1, cut), ": the packed bytes end at offset %d+, before their") end
    refuse_packed(good:sub(1, -9) .. "\0\0\0\0" .. good:sub(-4), ": damaged packed bytes at offset 40: incorrect data")
    refuse_packed(good:sub(1, -5) .. "\0\0\0\0", ": damaged packed bytes at offset 40: incorrect length")
    refuse_packed(good .. "garbage", ": damaged packed bytes at offset 40: incorrect header")
    refuse_packed(good .. good, " continues after offset 40, where it must end by its header")
    refuse_packed(packed(images:sub(1, -2)), " ends at offset 39, expected 1 more bytes")
    refuse_packed(packed(images .. "x"), " continues after offset 40")
    refuse_packed(packed(images:sub(1, 4) .. "\255\255\255\255" .. images:sub(9)), ": offset 4: size 4294967295 needs")
    write(path .. ".gz", packed(images:sub(1, 20)) .. packed(images:sub(21))) -- two streams, as gzip allows
    assert.same({2, 3, 4, 1}, data.mnist(dir, {only = "test"}).test.images:shape())
  end)
end)

describe("the synthetic set", function()
  it("is a function of seed, split and index, the same bits everywhere", function()
    local a, b = data.synthetic {train = 40, test = 10}, data.synthetic {train = 20, test = 10}
    assert.equal("synthetic", a.name)
    assert.same(a.train.images:narrow(1, 1, 20):totable(), b.train.images:totable())
    assert.is_not.same(a.train.images:narrow(1, 1, 10):totable(), a.test.images:totable())
    local c = data.synthetic {train = 20, test = 10, seed = 1}
    assert.is_not.same(b.train.images:totable(), c.train.images:totable())
    local p, sum = a.train.images:data(), 0
    for i = 0, a.train.images:numel() - 1 do sum = (sum * 31 + p[i]) % 2 ^ 31 end
    assert.equal(1732198594, sum) -- a recorded checksum: another picture changes it
  end)

  it("has ten classes in equal numbers, and enough contrast", function()
    local d = data.synthetic {train = 100, test = 10}
    local count = {}
    for _, label in ipairs(d.train.labels:totable()) do count[label] = (count[label] or 0) + 1 end
    for k = 0, 9 do assert.equal(10, count[k]) end
    for c = 1, 3 do
      assert.is_true(d.mean[c] > 0.2 and d.mean[c] < 0.8)
      assert.is_true(d.std[c] > 0.1)
    end
  end)

  it("refuses options that make no sense", function()
    assert.error_matches(function() data.synthetic {train = 0} end, "0 images, expected a whole number")
    assert.error_matches(function() data.synthetic {trian = 10} end, "unknown option 'trian'")
    assert.error_matches(function() data.synthetic {seed = -1} end, "seed %-1, expected a whole number")
    assert.error_matches(function() data.synthetic {test = "many"} end, "test is a string, expected a number")
  end)
end)

describe("user-defined sets", function()
  it("are checked", function()
    local images = atomo.zeros({2, 4, 4, 1}, "u8")
    local set = data.set(images, atomo.tensor({0, 4}, "i32"))
    assert.equal(5, set.classes)
    assert.error_matches(function() data.set(images, atomo.tensor({0, 4}, "i32"), 4) end, "label 4 of image 2")
    assert.error_matches(function() data.set(images, atomo.tensor({0}, "i32")) end, "images %[2,4,4,1%], labels %[1%]")
    assert.error_matches(function() data.set(images, atomo.tensor {0, 1}) end, "labels is f32, expected i32")
  end)

  it("get their mean and deviation from the pixels", function()
    local images = atomo.tensor({{{{0, 10}, {255, 10}}}}, "u8")
    local mean, std = data.channel_stats(images)
    assert.same({0.5, 10 / 255}, mean)
    assert.same({0.5, 0}, std)
  end)
end)

describe("the shared files", function()
  it("are CIFAR-10", function()
    if not exists(shared .. "cifar-10-batches-bin/test_batch.bin") then return pending "no shared data" end
    local d = data.open(shared .. "cifar-10-batches-bin")
    local file = assert(io.open(shared .. "cifar-10-batches-bin/data_batch_2.bin", "rb"))
    file:seek("set", 3073 * 17)
    local record = file:read(3073)
    file:close()
    local first = d.train.n - 5000
    assert.equal(record:byte(1), d.train.labels:get(first + 18))
    assert.equal(record:byte(2 + 1024 + 33), d.train.images:get(first + 18, 2, 2, 2))
    local mean, std = data.channel_stats(d.train.images)
    for c = 1, 3 do
      assert.is_true(math.abs(mean[c] - d.mean[c]) < 0.01)
      assert.is_true(math.abs(std[c] - d.std[c]) < 0.01)
    end
  end)

  it("are MNIST", function()
    if not exists(shared .. "mnist/t10k-images-idx3-ubyte.gz") then return pending "no shared data" end
    local d = data.mnist(shared .. "mnist", {only = "test"})
    assert.equal(10000, d.test.n)
    assert.same({7, 2, 1, 0, 4}, d.test.labels:narrow(1, 1, 5):totable())
    local mean = data.channel_stats(d.test.images)
    assert.is_true(math.abs(mean[1] - 0.1325) < 0.001)
  end)
end)
