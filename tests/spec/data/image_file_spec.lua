-- Reading of single images for prediction. The formats themselves are tested in image_folder_spec.lua.
local atomo = require "atomo"
local fails = require "support.fails"
local image_file = require "atomo.data.image_file"
local with_file = require "support.with_file"

describe("image files", function()
  it("are PNM, PNG and JPEG, brought to the network's size and channels", function()
    with_file("P6\n2 1\n255\n\1\2\3\250\251\252", ".ppm", function(path)
      local image = image_file.read(path, {1, 2, 3})
      assert.same({1, 1, 2, 3}, image:shape())
      assert.same({{{{1, 2, 3}, {250, 251, 252}}}}, image:totable())
      assert.same({1, 1, 2, 1}, image_file.read(path, {1, 2, 1}):shape())
    end)
    with_file("P5 8 4 255\n" .. ("\77"):rep(32), ".pgm", function(path) -- the ending does not matter
      local image = image_file.read(path, {2, 2, 3})
      for _, v in ipairs(image:view(-1):totable()) do assert.equal(77, v) end
    end)
  end)

  it("are .npy of one image or several", function()
    local images = atomo.arange(24):to("u8"):view(2, 2, 2, 3)
    for _, case in ipairs {{images, 2, {2, 2, 3}}, {images:select(1, 2):contiguous(), 1, {2, 2, 3}},
      {images:view(4, 6), 1, {4, 6, 1}}} do
      with_file("", ".npy", function(path)
        case[1]:save_npy(path)
        local got = image_file.read(path, case[3])
        assert.equal(case[2], got:size(1))
        assert.equal(case[1]:contiguous():bytes(), got:contiguous():bytes())
        fails({path, "u8 ", "expected u8 [9,2,3], or [n,9,2,3]"}, image_file.read, path, {9, 2, 3})
      end)
    end
    with_file("", ".npy", function(path)
      atomo.zeros(2, 2):save_npy(path)
      fails({path, "f32 [2,2]"}, image_file.read, path, {2, 2, 1})
    end)
  end)

  it("are refused by name where they are damaged or none", function()
    with_file("P6\n2 2\n255\nabc", ".ppm", function(path) fails(path, image_file.read, path, {2, 2, 3}) end)
    with_file("hello", ".png", function(path) fails(path, image_file.read, path, {2, 2, 3}) end)
    fails({"image: ", "nowhere.ppm"}, image_file.read, "nowhere.ppm", {2, 2, 3})
    fails(".", image_file.read, ".", {2, 2, 3})
  end)
end)
