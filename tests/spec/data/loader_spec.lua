-- The batch loader: each image once an epoch over all ranks, the same pixels on any number of ranks and threads,
-- normalisation as numpy's, augmentation, errors from the thread, no allocation once warm.
local atomo = require "atomo"
local golden = require "support.root" .. "tests/golden/"

--- n images of h x w x c whose label is their index and whose pixels are random.
local function numbered(n, h, w, c)
  local images = atomo.rand(n, h or 8, w or 8, c or 1):mul_(256):to "u8"
  return {images = images, labels = atomo.arange(n):to "i32", n = n, classes = n}
end

local function loader(o)
  return atomo.data.loader(o)
end

--- What one rank sees in an epoch: a list of {label, pixels...} in order, and the numbers of images of its steps.
local function epoch_of(o, e)
  local l, seen, steps = loader(o), {}, {}
  for b in l:epoch(e) do
    steps[#steps + 1] = b.n
    assert.equal(#steps, b.index)
    assert.same({b.n}, b.y:shape())
    assert.equal(b.n, b.x:size(1))
    local pixels = b.x:numel() / math.max(1, b.n)
    local x, y = b.x:data(), b.y:data()
    for i = 0, b.n - 1 do
      local row = {y[i]}
      for k = 0, pixels - 1 do row[k + 2] = x[i * pixels + k] end
      seen[#seen + 1] = row
    end
  end
  assert.equal(l.steps, #steps)
  l:close()
  return seen, steps
end

local function with(o, more)
  local t = {}
  for k, v in pairs(o) do t[k] = v end
  for k, v in pairs(more) do t[k] = v end
  return t
end

describe("sharding", function()
  it("shows each image exactly once an epoch for any number of ranks, in as many steps on each", function()
    for _, n in ipairs {1, 5, 37, 64} do
      local set = numbered(n, 2, 2)
      for _, size in ipairs {1, 2, 3, 4, 7} do
        for _, batch in ipairs {1, 4, 9} do
          local count, steps = {}, nil
          for rank = 0, size - 1 do
            local seen, mine = epoch_of({set = set, batch = batch, rank = rank, size = size, seed = 3}, 1)
            for _, row in ipairs(seen) do count[row[1]] = (count[row[1]] or 0) + 1 end
            steps = steps or #mine
            assert.equal(steps, #mine)
            assert.equal(math.ceil(n / (batch * size)), #mine)
            for i = 1, #mine - 1 do assert.equal(batch, mine[i]) end
          end
          for i = 0, n - 1 do assert.equal(1, count[i]) end
        end
      end
    end
  end)

  it("gives the last step's images evenly, some ranks none, and tells the total", function()
    local set, sizes = numbered(10, 2, 2), {}
    for rank = 0, 3 do
      local l = loader {set = set, batch = 2, rank = rank, size = 4}
      for b in l:epoch(0) do
        sizes[b.index] = sizes[b.index] or {}
        sizes[b.index][rank + 1] = b.n
        assert.equal(b.index == 1 and 8 or 2, b.total)
        if b.n == 0 then
          assert.same({0, 2, 2, 1}, b.x:shape())
          assert.same({0}, b.y:shape())
        end
      end
    end
    assert.same({2, 2, 2, 2}, sizes[1])
    assert.same({0, 1, 0, 1}, sizes[2])
  end)

  it("can leave a last, smaller batch out", function()
    local _, steps = epoch_of({set = numbered(10), batch = 4, drop_last = true}, 0)
    assert.same({4, 4}, steps)
    assert.error_matches(function() loader {set = numbered(3), batch = 4, drop_last = true} end,
      "drop_last with 3 images, fewer than one global batch")
  end)

  it("makes the same global batches and pixels on one rank as on four", function()
    local set = numbered(50, 6, 6, 3)
    local common = {set = set, seed = 11, augment = {crop = 2, flip = true}, mean = {0.5, 0.4, 0.3},
      std = {0.2, 0.3, 0.4}}
    local one = epoch_of(with(common, {batch = 8}), 5)
    local four, parts = {}, {}
    for rank = 0, 3 do parts[rank] = {epoch_of(with(common, {batch = 2, rank = rank, size = 4}), 5)} end
    local at = {[0] = 0, 0, 0, 0}
    for step = 1, 7 do
      for rank = 0, 3 do
        for _ = 1, parts[rank][2][step] do
          at[rank] = at[rank] + 1
          four[#four + 1] = parts[rank][1][at[rank]]
        end
      end
    end
    assert.same(one, four)
  end)

  it("keeps the order of the files when not shuffled", function()
    local seen = epoch_of({set = numbered(9, 2, 2), batch = 4, shuffle = false}, 3)
    for i = 1, 9 do assert.equal(i - 1, seen[i][1]) end
  end)
end)

describe("the order of an epoch", function()
  local function order(n, seed, e)
    local labels = {}
    for i, row in ipairs(epoch_of({set = numbered(n, 1, 1), batch = 16, seed = seed}, e)) do labels[i] = row[1] end
    return labels
  end

  it("depends on seed and epoch, and on nothing else", function()
    assert.same(order(40, 1, 2), order(40, 1, 2))
    assert.is_not.same(order(40, 1, 2), order(40, 1, 3))
    assert.is_not.same(order(40, 1, 2), order(40, 2, 2))
  end)

  it("is uniform over permutations", function()
    -- 24 orders of 4 images in 2400 epochs: chi-square with 23 degrees of freedom above 49.7 has probability 1e-3.
    local count = {}
    local l = loader {set = numbered(4, 1, 1), batch = 4, seed = 5, background = false}
    for e = 0, 2399 do
      for b in l:epoch(e) do
        local key = table.concat(b.y:totable())
        count[key] = (count[key] or 0) + 1
      end
    end
    local chi, kinds = 0, 0
    for _, k in pairs(count) do
      chi = chi + (k - 100) ^ 2 / 100
      kinds = kinds + 1
    end
    assert.equal(24, kinds)
    assert.is_true(chi < 49.7, "chi-square " .. chi)
  end)
end)

describe("pixels", function()
  it("are normalised as numpy does", function()
    local images = atomo.from_npy(golden .. "loader_images.npy")
    local want = atomo.from_npy(golden .. "loader_normalised.npy")
    local set = {images = images, labels = atomo.zeros({5}, "i32"), n = 5}
    local l = loader {set = set, batch = 5, shuffle = false, mean = {0.4914, 0.4822, 0.4465},
      std = {0.2470, 0.2435, 0.2616}}
    for b in l:epoch(0) do
      assert.same(want:shape(), b.x:shape())
      assert.is_true((b.x - want):abs():max():item() < 5e-7)
    end
  end)

  it("are crops, padded by zeros, and mirror images, each as often as the others", function()
    local h, w, c = 5, 6, 3
    local set = numbered(1, h, w, c)
    local pixels, found, kinds = set.images:data(), {}, 0
    local function same(x, dy, dx, flip)
      for y = 0, h - 1 do
        for i = 0, w - 1 do
          local sy, sx = y + dy, (flip and w - 1 - i or i) + dx
          local inside = sy >= 0 and sy < h and sx >= 0 and sx < w
          for k = 0, c - 1 do
            local want = inside and (pixels[(sy * w + sx) * c + k] / 255 - 0.5) / 0.25 or 0
            if math.abs(x[(y * w + i) * c + k] - want) > 1e-5 then return false end
          end
        end
      end
      return true
    end
    local l = loader {set = set, batch = 1, seed = 2, augment = {crop = 1, flip = true}, mean = {0.5, 0.5, 0.5},
      std = {0.25, 0.25, 0.25}, background = false}
    for e = 1, 900 do
      for b in l:epoch(e) do
        local matches = 0
        for dy = -1, 1 do
          for dx = -1, 1 do
            for flip = 0, 1 do
              if same(b.x:data(), dy, dx, flip == 1) then
                matches = matches + 1
                local key = dy .. "," .. dx .. "," .. flip
                if not found[key] then kinds = kinds + 1 end
                found[key] = (found[key] or 0) + 1
              end
            end
          end
        end
        assert.equal(1, matches)
      end
    end
    assert.equal(18, kinds)
    local chi = 0 -- 17 degrees of freedom: above 40.8 with probability 1e-3
    for _, k in pairs(found) do chi = chi + (k - 50) ^ 2 / 50 end
    assert.is_true(chi < 40.8, "chi-square " .. chi)
  end)

  it("stay inside where the crop is wider than the image", function()
    local set, inside = numbered(50, 3, 2), 0
    for _, row in ipairs((epoch_of({set = set, batch = 7, augment = {crop = 9, flip = true}}, 0))) do
      local own = {[0] = true} -- padding, or a pixel of this image
      local image = set.images:select(1, row[1] + 1):contiguous():view(-1):totable()
      for _, v in ipairs(image) do own[math.floor(v / 255 * 1e6 + 0.5)] = true end
      for k = 2, #row do
        assert.is_true(own[math.floor(row[k] * 1e6 + 0.5)], row[k])
        if row[k] ~= 0 then inside = inside + 1 end
      end
    end
    assert.is_true(inside > 0)
  end)

  it("are the same bits from the background thread as from the caller's", function()
    local common = {set = numbered(41, 8, 8, 3), batch = 6, seed = 4, augment = {crop = 2, flip = true}}
    for e = 0, 2 do
      assert.same(epoch_of(with(common, {background = false}), e), epoch_of(common, e))
    end
  end)
end)

describe("the loader's life", function()
  it("allocates nothing once warm", function()
    local l = loader {set = numbered(50, 8, 8, 3), batch = 8, augment = {crop = 2, flip = true}}
    local function run(from, to)
      for e = from, to do
        for b in l:epoch(e) do assert.is_true(b.n > 0) end
      end
    end
    run(0, 1)
    local before = atomo.mem().system_allocs
    run(2, 20)
    assert.equal(before, atomo.mem().system_allocs)
  end)

  it("begins in the middle of an epoch, to go on where a run was stopped", function()
    local set, all, rest = numbered(20, 2, 2), {}, {}
    local l = loader {set = set, batch = 3, seed = 9}
    for b in l:epoch(4) do all[b.index] = b.y:totable() end
    for b in l:epoch(4, 5) do rest[b.index] = b.y:totable() end
    assert.same({[5] = all[5], [6] = all[6], [7] = all[7]}, rest)
  end)

  it("can be left in mid-epoch, begun again, closed at any time, and dropped", function()
    for stop = 0, 4 do
      local l = loader {set = numbered(40, 8, 8), batch = 4}
      local old
      if stop > 0 then
        old = l:epoch(0)
        for _ = 1, stop do assert.equal(4, old().n) end
      end
      local n = 0
      for b in l:epoch(1) do n = n + b.n end
      assert.equal(40, n)
      if old then assert.error_matches(old, "ended by a later :epoch%(%)") end
      local going = l:epoch(2)
      local batch = going()
      l:close()
      l:close()
      assert.is_number(batch.x:sum():item())
      assert.error_matches(going, "used after :close%(%)")
      assert.error_matches(function() l:epoch(3) end, "used after :close%(%)")
    end
    for _ = 1, 20 do loader({set = numbered(40, 8, 8), batch = 4}):epoch(0)() end
    collectgarbage()
    collectgarbage()
  end)

  it("survives the end of the scope that its batches are used in", function()
    local l, sum = loader {set = numbered(40, 8, 8), batch = 4}, 0
    for e = 0, 1 do
      local it = l:epoch(e)
      while atomo.scope(function()
        local b = it()
        if b then sum = sum + b.x:sum():item() end
        return b
      end) do end -- luacheck: ignore 542
    end
    assert.is_true(sum > 0)
  end)

  it("changes the version of a batch's memory when it is used again", function()
    local C = require("atomo.ffi").C
    local l = loader {set = numbered(40, 2, 2), batch = 4}
    local it = l:epoch(0)
    local x = it().x:detach()
    local before = C.atomo_tensor_version(x.h)
    for _ = 1, 4 do it() end
    assert.is_true(C.atomo_tensor_version(x.h) > before)
  end)

  it("raises an error of the thread at its step", function()
    for _, background in ipairs {true, false} do
      local set = numbered(20, 2, 2)
      set.classes = 18
      local l, steps = loader {set = set, batch = 4, shuffle = false, background = background}, 0
      local ok, message = pcall(function()
        for _ in l:epoch(0) do steps = steps + 1 end
      end)
      assert.is_false(ok)
      assert.equal(4, steps)
      assert.matches("label 18 of image 19, expected 0 to 17", message)
      set.labels:fill_(1)
      local n = 0
      for b in l:epoch(1) do n = n + b.n end
      assert.equal(20, n)
    end
  end)

  it("refuses options that make no sense, naming them", function()
    local set = numbered(4, 2, 2)
    for pattern, o in pairs {
      ["set is missing"] = {}, ["batch is 0"] = {set = set, batch = 0}, ["batch is 1.5"] = {set = set, batch = 1.5},
      ["rank 2 of 2"] = {set = set, rank = 2, size = 2}, ["unknown option 'bacth'"] = {set = set, bacth = 3},
      ["augment is true"] = {set = set, augment = true},
      ["unknown option 'crpo'"] = {set = set, augment = {crpo = 1}},
      ["crop is %-1"] = {set = set, augment = {crop = -1}}, ["seed is %-1"] = {set = set, seed = -1},
      ["mean has 2 values, the images have 1 channels"] = {set = set, mean = {1, 2}},
      ["channel 1: mean 0, std 0"] = {set = set, std = {0}}, ["channel 1: mean %-?nan"] = {set = set, mean = {0 / 0}},
      ["labels %[3%]: expected one label an image"] = {set = {images = set.images, labels = atomo.zeros({3}, "i32")}},
      ["set.images is i32, expected u8"] = {set = {images = atomo.zeros({4, 2, 2, 1}, "i32"), labels = set.labels}},
    } do
      assert.error_matches(function() loader(o) end, "loader: .*" .. pattern)
    end
    local l = loader {set = set, batch = 2}
    for _, e in ipairs {-1, 0.5, 2 ^ 32, 0 / 0} do
      assert.error_matches(function() l:epoch(e) end, "epoch .* whole number")
    end
    assert.error_matches(function() l:epoch(0, 4) end, "step 3, expected a whole number in %[0, 2%]")
  end)
end)
