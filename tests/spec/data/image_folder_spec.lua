-- Class folders of images: PNG, JPEG and PNM with the values that Pillow reads, sizes, classes, parts; damaged files.
local atomo = require "atomo"
local fails = require "support.fails"
local folders = require "support.folders"
local golden = dofile(require "support.root" .. "tests/golden/data_files.lua")
local data, unhex = atomo.data, folders.unhex

local files = {}
for name, text in pairs(golden.images) do files[name] = unhex(text) end

--- Returns the largest difference between the elements of a tensor and of bytes.
local function distance(t, bytes)
  assert.equal(#bytes, t:numel())
  local p, worst = t:data(), 0
  for i = 1, #bytes do worst = math.max(worst, math.abs(bytes:byte(i) - p[i - 1])) end
  return worst
end

--- Does this build lack the library for PNG or JPEG files?
local function lacks(ending)
  local missing
  folders.with({["a/1." .. ending] = files["rgb." .. ending]}, function(path)
    local ok, problem = pcall(data.open, path)
    missing = not ok and problem:find("this build has no", 1, true) ~= nil
  end)
  return missing
end
local missing = {png = lacks "png", jpg = lacks "jpg"}

describe("an image file", function()
  for name in pairs(files) do
    it(name .. " has the pixels that Pillow reads", function()
      if missing[name:match "%w+$"] then return pending "built without the format's library" end
      local want = golden.pixels[name]
      folders.with({["class/" .. name] = files[name]}, function(path)
        local d = data.open(path)
        assert.same({1, unpack(want.shape)}, d.train.images:shape())
        assert.same(want.shape, d.shape)
        local most = name:find "%.jpg$" and 2 or 0 -- other versions of libjpeg round in other places
        assert.is_true(distance(d.train.images, unhex(want.bytes)) <= most)
      end)
    end)
  end

  it("is scaled to cover a size, with its centre kept, as by Pillow", function()
    for size, want in pairs(golden.fitted) do
      local h, w = size:match "(%d+) x (%d+)"
      folders.with({["class/a.ppm"] = files["smooth.ppm"]}, function(path)
        local got = data.open(path, {size = {tonumber(h), tonumber(w)}}).train.images
        assert.same({1, unpack(want.shape)}, got:shape())
        assert.is_true(distance(got, unhex(want.bytes)) <= 1, size) -- Pillow rounds between its two passes
      end)
    end
  end)

  it("is made grey or coloured as option channels says", function()
    local two = {["class/a.ppm"] = "P6 2 1 255\n\255\0\0\10\20\30", ["class/b.pgm"] = "P5 2 1 255\n\7\9"}
    folders.with(two, function(path)
      assert.same({76, 18}, data.open(path, {channels = 1}).train.images:select(1, 1):reshape(2):totable())
      local both = data.open(path).train.images -- in colour, as one of them is
      assert.same({7, 7, 7, 9, 9, 9}, both:select(1, 2):reshape(6):totable())
    end)
  end)

  it("may be any PNM", function()
    for bytes, want in pairs {
      ["P1\n# a comment\n3 1\n1 0\n1"] = {0, 255, 0}, ["P1 3 1 101"] = {0, 255, 0},
      ["P2 2 1 15 0 15 "] = {0, 255}, ["P2 2 1 3\n1 2"] = {85, 170}, ["P3 1 1 255 1 2 3"] = {1, 2, 3},
      ["P4 9 1\n\170\128"] = {0, 255, 0, 255, 0, 255, 0, 255, 0}, ["P5 2 1 65535\n\255\255\128\0"] = {255, 128},
      ["P6#c\n1 1 1\n\1\0\1"] = {255, 0, 255},
    } do
      folders.with({["class/a.pnm"] = bytes}, function(path)
        local images = data.open(path).train.images
        assert.same(want, images:reshape(images:numel()):totable())
      end)
    end
  end)
end)

describe("a folder of class folders", function()
  it("has its classes in the order of their names, and files at any depth", function()
    folders.with({["b/1.ppm"] = files["rgb.ppm"], ["B/x/2.PPM"] = files["rgb.ppm"], ["a/3.ppm"] = files["rgb.ppm"],
      ["a/1.ppm"] = files["rgb.ppm"], ["a/notes.txt"] = "no image", ["read.me"] = "none"}, function(path)
      local d = data.open(path .. "/")
      assert.same({"B", "a", "b"}, d.names)
      assert.equal(3, d.classes)
      assert.same({0, 1, 1, 2}, d.train.labels:totable())
      assert.is_nil(d.test)
      assert.equal(path:match "[^/]+$", d.name)
      local mean = data.channel_stats(d.train.images)
      assert.same(mean, d.mean)
    end)
  end)

  it("has two parts if it has train and test, with the training set's classes and channels", function()
    folders.with({["train/a/1.pgm"] = files["grey.pgm"], ["train/b/1.pgm"] = files["grey.pgm"],
      ["test/b/1.ppm"] = files["rgb.ppm"]}, function(path)
      local d = data.open(path)
      assert.equal(2, d.train.n)
      assert.same({1}, d.test.labels:totable())
      assert.same({1, 3, 4, 1}, d.test.images:shape())
      assert.equal(2, d.test.classes)
      local only = data.open(path, {only = "test"})
      assert.is_nil(only.train)
      assert.same({1}, only.test.labels:totable())
      folders.write(path .. "/test/c/1.ppm", files["rgb.ppm"])
      fails({"/test/c: the training set has no class 'c'"}, data.open, path)
    end)
  end)

  it("gives a part for tests on request, the same with the same seed", function()
    local contents = {}
    for i = 1, 20 do contents[("%s/%d.pgm"):format(i % 2 == 0 and "a" or "b", i)] = "P5 1 1 255 " .. string.char(i) end
    folders.with(contents, function(path)
      local function values(set) return set.images:reshape(set.n):totable() end
      local d, again = data.open(path, {test = 0.2}), data.open(path, {test = 0.2})
      local other = data.open(path, {test = 0.2, seed = 1})
      assert.equal(16, d.train.n)
      assert.equal(4, d.test.n)
      assert.same(values(d.test), values(again.test))
      assert.is_false(pcall(assert.same, values(d.test), values(other.test)))
      local all = values(d.train)
      for _, v in ipairs(values(d.test)) do all[#all + 1] = v end
      table.sort(all)
      for i = 1, 20 do assert.equal(i, all[i]) end
      for i, v in ipairs(values(d.test)) do assert.equal(v % 2, d.test.labels:get(i)) end
      assert.equal(4, data.open(path, {test = 0.2, only = "test"}).test.n)
      assert.equal(16, data.open(path, {test = 0.2, only = "train"}).train.n)
      fails("fraction is 1.5", data.open, path, {test = 1.5})
      fails({"no test part", "test = 0.1"}, data.open, path, {only = "test"})
    end)
  end)

  it("is refused with the reason", function()
    if missing.png or missing.jpg then return pending "built without libpng or libjpeg" end
    local png = files["rgb.png"]
    for texts, contents in pairs {
      [{"has no data set", "class folders"}] = {["a/text.txt"] = "none"},
      [{"/b has no image"}] = {["a/1.png"] = png, ["b/text.txt"] = ""},
      [{"/a/2.ppm is 1 x 2 pixels", "/a/1.png is 3 x 4", "size = {h, w}"}] = {["a/1.png"] = png,
        ["a/2.ppm"] = "P6 2 1 255\n123456"},
      [{"/a/1.png: begins with 6e 6f 20", "expected a PNG, JPEG or PNM"}] = {["a/1.png"] = "no image"},
      [{"/a/1.png", "libpng"}] = {["a/1.png"] = png:sub(1, -14)},
      [{"/a/2.png", "libpng"}] = {["a/2.png"] = png:sub(1, -13)}, -- without its last chunk
      [{"/a/1.jpg", "libjpeg"}] = {["a/1.jpg"] = files["rgb.jpg"]:sub(1, -60)},
      [{"/a/1.pgm ends at offset 22, expected a value"}] = {["a/1.pgm"] = files["grey.pgm"]:sub(1, -2)},
      [{"/a/1.pgm", "value 9 above the largest, 7"}] = {["a/1.pgm"] = "P5 1 1 7\n\9"},
      [{"/a/1.pgm", "cannot hold the 60000 x 60000 pixels"}] = {["a/1.pgm"] = "P5 60000 60000 255\n1"},
      [{"/a/1.pgm", "a width above 65535"}] = {["a/1.pgm"] = "P5 70000 1 255\n1"},
      [{"/a/1.pgm", "0 x 2 pixels"}] = {["a/1.pgm"] = "P5 2 0 255\n1"},
      [{"/a/1.jpg", "CMYK"}] = {["a/1.jpg"] = unhex ("ffd8ffc000140800010001040111000211000311000411" ..
        "00ffda000e0401000200030004003f0000")},
    } do
      folders.with(contents, function(path) fails(texts, data.open, path) end)
    end
    local wide = png:sub(1, 16) .. "\0\0\234\96\0\0\234\96" .. png:sub(25) -- 60000 x 60000 in the header
    folders.with({["a/1.png"] = wide}, function(path) fails({"/a/1.png", "libpng"}, data.open, path) end)
    folders.with({["a/1.png"] = png}, function(path)
      fails("unknown option 'szie'", data.open, path, {szie = 3})
      fails("channels is 2, expected 1 or 3", data.open, path, {channels = 2})
      fails("data: size is 0", data.open, path, {size = 0})
      fails("unknown option 'layout'", data.open, path, {layout = "NCHW"})
    end)
    fails({"no such", "No such file"}, data.open, "no such")
  end)
end)
