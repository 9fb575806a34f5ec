-- Reading of image files, and their fitting to a network's size and channels.
local atomo = require "atomo"
local fails = require "support.fails"
local fit = require "atomo.data.fit_image"
local image_file = require "atomo.data.image_file"
local with_file = require "support.with_file"

local function read(bytes, check)
  with_file(bytes, ".img", function(path) check(image_file.read(path), path) end)
end

local function refused(bytes, texts)
  with_file(bytes, ".img", function(path)
    table.insert(texts, path)
    fails(texts, image_file.read, path)
  end)
end

describe("image files", function()
  it("are PGM and PPM, plain and binary, with comments and any largest value", function()
    read("P6\n# a comment\n2 1 # another\n255\n\1\2\3\250\251\252", function(list)
      assert.same({1, 1, 2, 3}, {#list, list[1]:size(1), list[1]:size(2), list[1]:size(3)})
      assert.same({{{1, 2, 3}, {250, 251, 252}}}, list[1]:totable())
    end)
    read("P5 2 2 255\n\9\8\7\6", function(list) assert.same({{{9}, {8}}, {{7}, {6}}}, list[1]:totable()) end)
    read("P5 2 1 65535 \255\255\128\0", function(list) assert.same({{{255}, {128}}}, list[1]:totable()) end)
    read("P2 2 1 15\n 15\n 3\n", function(list) assert.same({{{255}, {51}}}, list[1]:totable()) end)
    read("P3 1 1 255 7 8 9", function(list) assert.same({{{7, 8, 9}}}, list[1]:totable()) end)
  end)

  it("are .npy of one image or several", function()
    local images = atomo.arange(24):to("u8"):view(2, 2, 2, 3)
    for _, case in ipairs {{images, 2}, {images:select(1, 2):contiguous(), 1},
      {images:view(4, 6), 1}} do
      with_file("", ".npy", function(path)
        case[1]:save_npy(path)
        local list = image_file.read(path)
        assert.equal(case[2], #list)
        assert.equal("u8", list[1]:dtype())
        assert.equal(3, list[1]:dim())
        local whole = case[1]:contiguous():bytes()
        assert.equal(whole:sub(-#list[#list]:bytes()), list[#list]:bytes())
      end)
    end
    with_file("", ".npy", function(path)
      atomo.zeros(2, 2):save_npy(path)
      fails({path, "f32 [2,2]", "expected u8"}, image_file.read, path)
    end)
  end)

  it("are refused by name where they are damaged or none", function()
    refused("P6\n2 2\n255\nabc", {"3 bytes of samples, expected 12"})
    refused("P6\n2 x\n255\nabc", {"height is 'x'"})
    refused("P6\n0 2\n255\nabc", {"width is '0'"})
    refused("P5\n1 1\n70000\nabc", {"largest value is '70000'"})
    refused("P5 1 1 255", {"its header does not end"})
    refused("P2 2 1 255 1 x", {"'x' is no sample"})
    refused("P2 9999 9999 255 1", {"too few"})
    refused("P5 1 1 9\n\200", {"a sample is 200", "at most 9"})
    refused("hello", {"begins with 'hello'", "expected PGM, PPM or .npy"})
    refused("", {"begins with ''"})
    fails("image: ", image_file.read, "/nowhere/x.ppm")
    fails("image: .: it cannot be read", image_file.read, ".")
  end)
end)

describe("fit_image", function()
  local function filled(h, w, c, at)
    local image = atomo.empty({h, w, c}, "u8")
    for y = 1, h do for x = 1, w do for k = 1, c do image:set(y, x, k, at(y, x, k)) end end end
    return image
  end

  it("keeps an image of the shape, and converts channels", function()
    local image = filled(2, 2, 3, function(y, x, k) return 10 * y + x + 50 * k end)
    assert.equal(image, fit(image, {2, 2, 3}))
    assert.equal(math.floor(0.299 * 61 + 0.587 * 111 + 0.114 * 161 + 0.5), fit(image, {2, 2, 1}):get(1, 1, 1))
    local gray = filled(1, 1, 2, function(_, _, k) return k == 1 and 77 or 9 end)
    assert.same({{{77, 77, 77}}}, fit(gray, {1, 1, 3}):totable())
    local with_alpha = filled(1, 1, 4, function(_, _, k) return k end)
    assert.same({{{1, 2, 3}}}, fit(with_alpha, {1, 1, 3}):totable())
    fails("it has 5 channels, the network takes 3", fit, filled(1, 1, 5, function() return 0 end), {1, 1, 3})
    fails("the network takes 2", fit, image, {2, 2, 2})
  end)

  it("averages an image that shrinks, keeps constants, and crops to the middle", function()
    local even = filled(12, 8, 1, function() return 93 end)
    for _, v in ipairs(fit(even, {4, 4, 1}):view(-1):totable()) do assert.equal(93, v) end
    local stripes = filled(32, 32, 1, function(_, x) return x % 4 == 1 and 200 or 0 end)
    for x = 2, 7 do assert.near(50, fit(stripes, {8, 8, 1}):get(4, x, 1), 1) end
    -- 4 x 8 to 2 x 2: the middle 4 x 4 columns, so nothing of the outer ones where they do not reach in
    local halves = filled(4, 12, 1, function(_, x) return (x <= 4 or x > 8) and 255 or 40 end)
    local got = fit(halves, {1, 1, 1}):get(1, 1, 1)
    assert.is_true(got >= 40 and got < 110, tostring(got))
    local grown = fit(filled(1, 2, 1, function(_, x) return x == 1 and 0 or 100 end), {1, 1, 1})
    assert.near(50, grown:get(1, 1, 1), 1)
  end)

  it("interpolates an image that grows", function()
    local two = filled(2, 2, 1, function(_, x) return x == 1 and 0 or 100 end)
    assert.same({0, 25, 75, 100}, fit(two, {4, 4, 1}):select(1, 2):view(-1):totable())
  end)
end)
