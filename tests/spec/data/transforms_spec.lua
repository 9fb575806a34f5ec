-- Lists of transforms: what each does to the pixels, that the list {normalise, crop, flip} has the bits of the options
-- crop and flip, that pixels depend on (seed, epoch, image) only, and what is refused.
local atomo = require "atomo"
local fails = require "support.fails"
local data = atomo.data

local n, h, w = 40, 6, 7
atomo.manual_seed(4)
local bytes = atomo.rand(n, h, w, 3):mul_(256):to "u8"
local labels = atomo.arange(n):to "i32"
local set = {images = bytes, labels = labels, n = n, classes = n}
local floats = {images = bytes:to "f32" / 255, labels = labels, n = n, classes = n}
local normal = {mean = {0.4, 0.5, 0.6}, std = {0.2, 0.25, 0.3}}

--- Returns {[image] = list of pixels} and {[image] = row of y} of an epoch. The label of image i is i - 1.
local function pixels(augment, more, epoch, first)
  local o = {set = set, batch = 7, seed = 9, augment = augment}
  for k, v in pairs(more or {}) do o[k] = v end
  local loader, list, ys = data.loader(o), {}, {}
  for b in loader:epoch(epoch or 1, first) do
    for k = 1, b.n do
      local y = b.y:dim() == 1 and b.y:get(k) or b.y:select(1, k):totable()
      list[#list + 1], ys[#ys + 1] = b.x:select(1, k):reshape(h * w * 3):totable(), y
    end
  end
  loader:close()
  local by_image = {}
  if type(ys[1]) == "number" then
    for i, y in ipairs(ys) do by_image[y + 1] = list[i] end
  end
  return by_image, ys, list
end

local function of(image) return floats.images:select(1, image):reshape(h * w * 3):totable() end
local function at(y, x, c) return ((y - 1) * w + x - 1) * 3 + c end

describe("a list of transforms", function()
  it("normalise, crop, flip has the bits of the options crop and flip", function()
    for _, case in ipairs {{{crop = 2, flip = true}, {{"normalise"}, {"crop", 2}, {"flip"}}},
      {{flip = true}, {{"normalize"}, {"flip"}}}, {{crop = 3}, {{"normalise"}, {"crop", 3}}}, {false, {{"normalise"}}},
      {false, {{"normalise", mean = normal.mean, std = normal.std}}}} do
      assert.same(pixels(case[1], normal), (pixels(case[2], case[2][1].mean and {} or normal)))
    end
    assert.is_false(pcall(assert.same, pixels({{"normalise"}, {"flip"}}, normal), pixels({{"normalise"}}, normal)))
  end)

  it("that is not made in one pass has these bits, too", function()
    local want, got = pixels({crop = 2, flip = true}, normal), pixels({{"normalise"}, {"crop", 2}, {"flip"},
      {"cutout", 1}}, normal)
    for i = 1, n do
      local zeros = 0
      for k = 1, h * w * 3 do
        if got[i][k] ~= want[i][k] then
          assert.equal(0, got[i][k])
          zeros = zeros + 1
        end
      end
      assert.is_true(zeros <= 3, zeros .. " values differ") -- of one pixel; 0 if that was padding
    end
  end)

  it("without normalise has pixels from 0 to 1, of images of bytes and of floats", function()
    for _, s in ipairs {set, floats} do
      local got = pixels({{"flip", 0}}, {set = s})
      for i = 1, n do
        for k, v in ipairs(of(i)) do assert.is_true(math.abs(v - got[i][k]) < 1e-6) end
      end
    end
    local later, first = pixels({{"flip", 0}, {"normalise"}}, normal), pixels({{"normalise"}}, normal)
    local of_floats = pixels(false, {set = floats, mean = normal.mean, std = normal.std})
    for i = 1, n do
      for k = 1, h * w * 3 do
        assert.is_true(math.abs(later[i][k] - first[i][k]) < 2e-6)
        assert.is_true(math.abs(of_floats[i][k] - first[i][k]) < 2e-6)
      end
    end
  end)

  it("gives an image that depends on seed, epoch and image only", function()
    local list = {{"colour_jitter", brightness = 0.4, contrast = 0.4, saturation = 0.4}, {"crop", 2}, {"crop", 1},
      {"flip"}, {"cutout", 3}, {"normalise"}}
    local want = pixels(list, normal)
    for _, more in ipairs {{background = false}, {batch = 40}, {shuffle = false}} do
      more.mean, more.std = normal.mean, normal.std
      assert.same(want, (pixels(list, more)))
    end
    local ranks = {}
    for rank = 0, 2 do
      for i, v in pairs(pixels(list, {mean = normal.mean, std = normal.std, rank = rank, size = 3})) do ranks[i] = v end
    end
    assert.same(want, ranks)
    for i, v in pairs(pixels(list, normal, 1, 4)) do assert.same(want[i], v) end -- resumed at step 4
    assert.is_false(pcall(assert.same, want, (pixels(list, normal, 2))))
    assert.is_false(pcall(assert.same, want, (pixels(list, {mean = normal.mean, std = normal.std, seed = 10}))))
  end)
end)

describe("flip", function()
  it("mirrors with its probability", function()
    local whole, got, count = pixels {{"flip", 0}}, pixels {{"flip", 1}}, 0
    for i = 1, n do
      for x = 1, w do assert.equal(whole[i][at(2, x, 1)], got[i][at(2, w + 1 - x, 1)]) end
    end
    whole, got = pixels({{"normalise"}, {"flip", 0}}, normal), pixels({{"normalise"}, {"flip", 1}}, normal)
    for i = 1, n do
      for x = 1, w do assert.equal(whole[i][at(2, x, 1)], got[i][at(2, w + 1 - x, 1)]) end
    end
    whole = pixels {{"flip", 0}}
    for epoch = 0, 24 do -- 1000 flips with probability 0.3: outside of 230 to 370 once in a million
      for i, v in pairs(pixels({{"flip", 0.3}}, nil, epoch)) do
        if v[at(1, 1, 1)] ~= whole[i][at(1, 1, 1)] then count = count + 1 end
      end
    end
    assert.is_true(count > 230 and count < 370, count)
  end)
end)

describe("cutout", function()
  it("sets a square to zero, clipped at the image's edges, with its centre anywhere", function()
    local seen, ones = {}, {images = atomo.ones({n, h, w, 3}, "u8"), labels = labels, n = n, classes = n}
    for epoch = 0, 9 do
      for _, v in pairs(pixels({{"cutout", 3}}, {set = ones}, epoch)) do
        local y0, y1, x0, x1, count = 99, 0, 99, 0, 0
        for y = 1, h do
          for x = 1, w do
            if v[at(y, x, 1)] == 0 then
              y0, y1, x0, x1, count = math.min(y0, y), math.max(y1, y), math.min(x0, x), math.max(x1, x), count + 1
            end
          end
        end
        assert.equal((y1 - y0 + 1) * (x1 - x0 + 1), count)
        assert.is_true(y1 - y0 == 2 or y0 == 1 and y1 <= 2 or y1 == h)
        assert.is_true(x1 - x0 == 2 or x0 == 1 and x1 <= 2 or x1 == w)
        local cy, cx = y0 == 1 and y1 - 1 or y0 + 1, x0 == 1 and x1 - 1 or x0 + 1
        seen[cy * 100 + cx] = true
      end
    end
    local count = 0
    for _ in pairs(seen) do count = count + 1 end
    assert.equal(h * w, count) -- all centres: 400 draws leave one of 42 out once in 350 runs of random seeds
  end)
end)

describe("colour_jitter", function()
  it("scales brightness, contrast and saturation by a random factor of the image", function()
    local function grey(v, p) return 0.299 * v[p] + 0.587 * v[p + 1] + 0.114 * v[p + 2] end
    local about = { -- the value that stays where it is
      brightness = function() return 0 end,
      contrast = function(v)
        local sum = 0
        for p = 1, #v, 3 do sum = sum + grey(v, p) end
        return sum / (#v / 3)
      end,
      saturation = function(v, k) return grey(v, k - (k - 1) % 3) end,
    }
    for name, fixed in pairs(about) do
      local got, least, most = pixels {{"colour_jitter", [name] = 0.3}}, 9, 0
      for i = 1, n do
        local v, factor = of(i), nil
        for k = 1, #v do
          local to = fixed(v, k)
          if math.abs(v[k] - to) > 0.1 and got[i][k] > 0 and got[i][k] < 1 then
            local here = (got[i][k] - to) / (v[k] - to)
            factor = factor or here
            assert.is_true(math.abs(here - factor) < 1e-4, name)
          end
        end
        for k = 1, #v do
          local want = math.min(1, math.max(0, fixed(v, k) + factor * (v[k] - fixed(v, k))))
          assert.is_true(math.abs(got[i][k] - want) < 1e-4, name)
        end
        least, most = math.min(least, factor), math.max(most, factor)
      end
      assert.is_true(least > 0.7 - 1e-5 and most < 1.3 + 1e-5 and most - least > 0.3, name) -- 40 draws of [0.7, 1.3]
    end
  end)
end)

describe("mixup", function()
  it("mixes an image with another of the set, and their labels in the same way", function()
    local sums, count = {0, 0}, 0
    for epoch = 0, 9 do
      local _, ys, list = pixels({{"mixup", 1}}, nil, epoch)
      assert.equal(n, #ys)
      for i, y in ipairs(ys) do
        local images, sum = {}, 0
        for class, part in ipairs(y) do
          sum = sum + part
          if part > 0 then images[#images + 1] = {class, part} end
        end
        assert.equal(1, sum)
        assert.is_true(#images <= 2)
        local a, b = images[1], images[2] or {images[1][1], 0}
        local u, v = of(a[1]), of(b[1])
        for k = 1, h * w * 3, 5 do assert.is_true(math.abs(list[i][k] - a[2] * u[k] - b[2] * v[k]) < 1e-5) end
        if b[2] > 0 then
          count, sums[1], sums[2] = count + 1, sums[1] + a[2], sums[2] + a[2] * a[2]
        end
      end
    end
    local mean = sums[1] / count -- of Beta(1, 1): mean 1/2, variance 1/12; five standard errors of 390 draws
    assert.is_true(count > 370 and math.abs(mean - 0.5) < 5 * math.sqrt(1 / 12 / count), mean)
    assert.is_true(math.abs(sums[2] / count - mean ^ 2 - 1 / 12) < 0.025)
  end)

  it("mixes images as the transforms before it have changed each of them", function()
    local changed = pixels({{"flip"}, {"cutout", 3}}, nil, 3)
    local _, ys, list = pixels({{"flip"}, {"cutout", 3}, {"mixup", 1}}, nil, 3)
    for i, y in ipairs(ys) do
      for k = 1, h * w * 3, 5 do
        local want = 0
        for class, part in ipairs(y) do want = want + (part > 0 and part * changed[class][k] or 0) end
        assert.is_true(math.abs(list[i][k] - want) < 1e-5)
      end
    end
  end)

  it("trains with the default loss and accuracy", function()
    local s = data.synthetic {train = 60, test = 10}
    local model = atomo.nn.Sequential {atomo.nn.Flatten(), atomo.nn.Linear(3072, 10)}
    local seen
    atomo.train {model = model, quiet = true, optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01},
      data = data.loader {set = s.train, batch = 20, augment = {{"normalise"}, {"mixup", 0.2}}, mean = s.mean,
        std = s.std}, on_epoch = function(info) seen = info end}
    assert.is_true(seen.loss > 0 and seen.loss < 20 and seen.accuracy >= 0 and seen.accuracy <= 1)
  end)
end)

describe("a list of transforms is refused", function()
  it("with the reason", function()
    for text, augment in pairs {
      ["unknown transform 'crpo', a string"] = {{"crpo", 4}}, ["did you mean {\"cutout\"}?"] = {{"cutuot", 4}},
      ["unknown transform 4"] = {4}, ["crop: got missing, expected a number from 1 to 4095"] = {{"crop"}},
      ["crop is 1.5"] = {{"crop", 1.5}}, ["flip: got 2"] = {{"flip", 2}}, ["mixup: got 0,"] = {{"mixup", 0}},
      ["flip: one value too many"] = {{"flip", 0.5, 0.5}}, ["flip: unknown option 'p'"] = {{"flip", p = 0.5}},
      ["colour_jitter: brightness is -1"] = {{"colour_jitter", brightness = -1}},
      ["colour_jitter: one value too many"] = {{"colour_jitter", 0.4}},
      ["must stand before normalise"] = {{"normalise"}, {"colour_jitter", contrast = 0.1}},
      ["augment has no {\"normalise\"}"] = {{"flip"}}, ["2 times mixup"] = {{"normalise"}, {"mixup"}, {"mixup"}},
      ["the field 'flip', expected"] = {{"crop", 4}, flip = true}, ["augment is mixup"] = "mixup",
      ["mean has 2 values, the images have 3 channels"] = {{"normalise", mean = {1, 2}}},
    } do
      fails(text, data.loader, {set = set, augment = augment, mean = normal.mean})
    end
    local many = {}
    for i = 1, 13 do many[i] = {"flip"} end
    fails("13 transforms, at most 12", data.loader, {set = set, augment = many})
    local grey = {images = bytes:narrow(4, 1, 1):contiguous(), labels = labels, n = n}
    fails("saturation of images with 1 channels", data.loader, {set = grey, augment = {{"colour_jitter",
      saturation = 1}}})
    fails("the number of classes is not known", data.loader, {set = grey, augment = {{"mixup"}}})
  end)
end)
