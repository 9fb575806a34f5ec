-- Bad and unusual inputs to every compressor: each gives a correct result or an error that says what was wrong; nothing
-- hangs, and no message is partly added to an average.
local ffi = require "ffi"
local atomo = require "atomo"

local names = {}
for _, entry in ipairs(atomo.compressors()) do names[#names + 1] = entry.name end

local function made(name, more) return atomo.compressor(more and (name .. ":" .. more) or name, {seed = 5}) end

--- True where what came back can be told from the gradient by nothing but what the compressor promises: finite, shaped.
local function check_taken(name, what, g)
  local c = made(name)
  local back = c:decode(c:encode(g, {step = 1, tensor = 1}))
  assert.equal(0, back:count_nonfinite(), name .. ": " .. what)
  assert.same(g:shape(), back:shape())
  return back
end

local function error_of(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  return message
end

local function low_rank(m, n, values)
  local u, _, vt = atomo.svd(atomo.randn(m, n))
  local g = atomo.zeros(m, n)
  for k, s in ipairs(values) do g:add_(u:narrow(2, k, 1):matmul(vt:narrow(1, k, 1)):mul_(s)) end
  return g
end

describe("every compressor", function()
  it("takes zeros, one element, odd and prime sizes, low rank, equal singular values, the ends of the range", function()
    atomo.manual_seed(1)
    local inputs = {
      {"zeros", atomo.zeros(7, 5)}, {"one element", atomo.randn(1)}, {"one zero", atomo.zeros(1)},
      {"a prime", atomo.randn(127)}, {"odd", atomo.randn(9, 7, 3)}, {"rank one", low_rank(12, 9, {3})},
      {"equal singular values", low_rank(9, 12, {1, 1, 1, 1})},
      {"denormals", atomo.randn(8, 8):mul_(1e-30):mul_(1e-12)}, {"a denormal", atomo.zeros(5)},
      {"FLT_MAX in one entry", atomo.zeros(6, 6)}, {"FLT_MAX everywhere", atomo.full({4, 4}, 3.4028234e38)},
      {"FLT_MAX alone", atomo.full({1, 1}, 3.4028234e38)},
    }
    inputs[9][2]:data()[3] = 1.4e-45
    inputs[10][2]:set(2, 3, 3.4028234e38)
    for _, name in ipairs(names) do
      for _, input in ipairs(inputs) do
        if not input[1]:find "FLT_MAX" then
          local back = check_taken(name, input[1], input[2])
          if input[1]:find "zero" then assert.equal(0, back:norm_value(2), name .. ": " .. input[1]) end
        else -- an unbiased draw of FLT_MAX may not fit a float: an error says so, or the result is finite
          local ok, message = pcall(check_taken, name, input[1], input[2])
          message = tostring(message)
          local said = message:find("overflow", 1, true) or message:find("leave the range", 1, true)
          assert.is_true(ok or said ~= nil, name .. ": " .. input[1] .. ": " .. message)
        end
      end
    end
  end)

  it("refuses NaN and Inf, naming the tensor, and continues as if they had not come", function()
    atomo.manual_seed(2)
    local good = atomo.randn(6, 7)
    for _, name in ipairs(names) do
      local c, other = made(name), made(name)
      for _, value in ipairs {0 / 0, 1 / 0, -1 / 0} do
        local bad = good:clone()
        bad:data()[17] = value
        local message = error_of(c.encode, c, bad, {step = 3, tensor = 1})
        assert.truthy(message:find("NaN or Inf", 1, true), name .. ": " .. message)
        assert.truthy(message:find("number 18", 1, true), name .. ": " .. message)
      end
      assert.equal(other:encode(good, {step = 4, tensor = 1}):bytes(), c:encode(good, {step = 4, tensor = 1}):bytes())
    end
  end)

  it("reads views in their own order", function()
    atomo.manual_seed(3)
    local whole = atomo.randn(9, 14)
    local views = {whole:transpose(1, 2), whole:narrow(2, 3, 5), whole:select(2, 4), whole:narrow(1, 2, 3)}
    for _, name in ipairs(names) do
      for i, view in ipairs(views) do
        assert.equal(made(name):encode(view:contiguous(), {step = 1, tensor = 1}):bytes(),
          made(name):encode(view, {step = 1, tensor = 1}):bytes(), ("%s: view %d"):format(name, i))
      end
    end
  end)

  it("refuses messages cut at any byte, with any bit flipped, of another tensor, step or version, untouched", function()
    atomo.manual_seed(4)
    local g = atomo.randn(3, 5)
    for _, name in ipairs(names) do
      local c = made(name)
      c:prepare({{3, 5}, {3, 5}}, {"a", "b"})
      local msg = c:encode(g, {step = 6, tensor = 1})
      local bytes, acc, other = msg:bytes(), atomo.full({3, 5}, 2), atomo.full({3, 5}, 2)
      local function untouched()
        for i = 0, 14 do assert.is_true(acc:data()[i] == 2 and other:data()[i] == 2, name) end
      end
      local function refused(text)
        assert.is_false(pcall(c.decode_add, c, text, 1, acc), name)
        untouched()
      end
      for size = 0, #bytes - 1 do refused(bytes:sub(1, size)) end
      for at = 1, #bytes do
        for bit_at = 0, 7 do
          local byte = string.char(bit.bxor(bytes:byte(at), 2 ^ bit_at))
          refused(bytes:sub(1, at - 1) .. byte .. bytes:sub(at + 1))
        end
      end
      local buffer = atomo.zeros(#bytes, "u8")
      ffi.copy(buffer:data(), bytes, #bytes)
      local message = error_of(c.decode_step, c, buffer, 0, #bytes, 1, {acc}, 7)
      assert.truthy(message:find("step", 1, true), name .. ": " .. message)
      error_of(c.decode_step, c, buffer, 0, #bytes, 1, {other, acc}, 6) -- a message is missing
      message = error_of(c.decode, made(name), bytes)
      assert.truthy(message:find("not planned", 1, true), name .. ": " .. message)
    end
  end)

  it("reads a message's length and tensor from its header, and nothing after the bytes given", function()
    local g, length = atomo.tensor {1, 2, 3}, ffi.new "double[1]"
    for _, name in ipairs(names) do
      local bytes, C = made(name):encode(g, {step = 1, tensor = 1}):bytes(), require("atomo.ffi").C
      for size = 0, #bytes do -- magic and version 3, tensor, rank, step 1 each, hash 2, the body's length 1
        assert.equal(size >= 9, C.atomo_codec_length_of(bytes, size, length) == 0, ("%s: %d bytes"):format(name, size))
        assert.equal(size >= 4, C.atomo_codec_tensor_of(bytes, size) == 1, ("%s: %d bytes"):format(name, size))
      end
      assert.equal(#bytes, length[0], name)
      for number, said in pairs {["\0"] = 0, ["\255\255\255\255\15"] = 2 ^ 32 - 1} do -- not tensors' numbers
        local c, other = made(name), bytes:sub(1, 3) .. number .. bytes:sub(5)
        assert.truthy(error_of(c.decode, c, other):find(("message names tensor %.0f"):format(said), 1, true), name)
      end
    end
  end)

  it("takes budgets below an atom and above everything, refuses 0", function()
    atomo.manual_seed(5)
    local g = atomo.randn(16, 9)
    for _, entry in ipairs(atomo.compressors()) do
      local takes = {}
      for _, option in ipairs(entry.options) do takes[option.name or option.key] = true end
      if takes.bytes and takes.ratio and takes.atoms then
        local small = made(entry.name, "bytes=1") -- an empty message is longer
        assert.truthy(error_of(small.encode, small, g):find("bytes=1: 1 empty messages", 1, true))
        local budgets = {"bytes=14", "bytes=1e9", "ratio=1e6", "ratio=0.01"}
        if entry.name ~= "auto" then budgets[5], budgets[6] = "atoms=0.01", "atoms=1e9" end -- auto has no such unit
        for _, budget in ipairs(budgets) do
          local c = made(entry.name, budget)
          local back = c:decode(c:encode(g, {step = 1, tensor = 1}))
          assert.equal(0, back:count_nonfinite(), entry.name .. ":" .. budget)
        end
        for _, key in ipairs {"atoms", "bytes", "ratio"} do
          local message = error_of(made, entry.name, key .. "=0")
          assert.truthy(message:find(key .. " is '0'", 1, true), message)
        end
      end
    end
  end)
end)

describe("native memory", function()
  it("is not asked for after the second encode, with a basis refreshed every 3 steps, or with fewer tensors", function()
    atomo.manual_seed(6)
    local grads = {atomo.randn(24, 40), atomo.randn(16, 3, 3, 8), atomo.randn(500)}
    for _, text in ipairs {"svd:every=3", "svd:bits=4", "entry", "taps", "rotated",
      "fourier", "fourier:rows=1", "dct:chunk=8",
      "haar", "hadamard", "auto"} do
      local c = atomo.compressor(text)
      c:prepare({{24, 40}, {16, 3, 3, 8}, {500}}, {"a", "b", "c"})
      local out = atomo.zeros(c:wire_max(), "u8")
      c:encode_step(grads, {step = 0, out = out})
      c:encode_step(grads, {step = 1, out = out})
      local before = atomo.mem().system_allocs
      for step = 2, 9 do c:encode_step(grads, {step = step, out = out}) end
      for step = 10, 12 do -- tensor 2 gets no gradient: the others are pushed one by one
        c:begin_step(step, 0)
        c:push(3, grads[3], out, 0)
        c:push(1, grads[1], out, 0)
        c:end_step()
      end
      assert.equal(before, atomo.mem().system_allocs, text)
    end
  end)
end)

describe("messages", function()
  it("are the same bytes on every machine and in every build", function()
    local x = ffi.new("float[?]", 5000) -- integers and a power of two: nothing to round
    local state = 1
    for i = 0, 4999 do
      state = (state * 16807) % 2147483647
      local small = state % 1000 - 500
      x[i] = small * math.abs(small) * 2 ^ -20
    end
    local g = atomo.zeros(50, 100)
    ffi.copy(g:data(), x, 20000)
    local function sum(text)
      local s = 5381
      for i = 1, #text do s = (s * 33 + text:byte(i)) % 4294967296 end
      return s
    end
    local want = {["entry:ratio=3"] = 3127005423, ["entry:ratio=40"] = 476931309,
      ["entry:ratio=8,sampling=systematic"] = 1680251380, ["haar:ratio=8"] = 3748236036, qsgd = 269594510,
      ["terngrad:coding=elias"] = 228542613, natural = 1138347950, ["randk:ratio=8"] = 3920523325,
      ["rows:ratio=8"] = 1858251927, signsgd = 1602128214}
    for text, figure in pairs(want) do
      assert.equal(figure, sum(atomo.compressor(text, {seed = 9}):encode(g, {step = 2, tensor = 1}):bytes()), text)
    end
  end)
end)
