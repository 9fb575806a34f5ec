-- .npy files both ways, against files that numpy wrote (tests/golden/make_npy.py).
local atomo = require "atomo"
local golden = require "support.root" .. "tests/golden/"
local bytes_of = require("support.shell").content

local function write(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

local function fails(text, pattern)
  local path = write(text)
  local ok, message = pcall(atomo.from_npy, path)
  os.remove(path)
  assert.is_false(ok)
  assert.matches(pattern, message)
  assert.matches(path, message, 1, true)
end

local function npy(dict, data)
  dict = dict .. (" "):rep((64 - (10 + #dict + 1) % 64) % 64) .. "\n"
  return "\147NUMPY\1\0" .. string.char(#dict % 256, math.floor(#dict / 256)) .. dict .. (data or "")
end

describe("npy files", function()
  it("are read as numpy wrote them: f4, f8, Fortran order, versions 2 and 3", function()
    for _, name in ipairs {"f4", "f4_fortran", "f8", "v2", "v3"} do
      local t = atomo.from_npy(golden .. "npy_" .. name .. ".npy")
      assert.same({2, 3, 4}, t:shape())
      for i = 0, 23 do
        local want = (i - 7.25) / 3
        local got = t:get(math.floor(i / 12) + 1, math.floor(i / 4) % 3 + 1, i % 4 + 1)
        assert.is_true(math.abs(got - want) <= 2 ^ -24 * math.abs(want), name)
      end
    end
  end)

  it("are read: integers, bytes, scalars and empty arrays", function()
    local i4 = atomo.from_npy(golden .. "npy_i4.npy")
    assert.equal("i32", i4:dtype())
    assert.same({{1, -2, 3}, {2147483647, -2147483648, 0}}, i4:totable())
    assert.same({{1, -2}, {2147483647, -2147483648}, {5, 6}}, atomo.from_npy(golden .. "npy_i8_fortran.npy"):totable())
    local u1 = atomo.from_npy(golden .. "npy_u1.npy")
    assert.equal("u8", u1:dtype())
    assert.equal(255, u1:get(256))
    assert.equal(2.5, atomo.from_npy(golden .. "npy_scalar.npy"):item())
    assert.same({0, 3}, atomo.from_npy(golden .. "npy_empty.npy"):shape())
  end)

  it("are written byte for byte as numpy writes them", function()
    for _, name in ipairs {"f4", "i4", "u1", "scalar", "empty"} do
      local path = os.tmpname()
      atomo.from_npy(golden .. "npy_" .. name .. ".npy"):save_npy(path)
      assert.equal(bytes_of(golden .. "npy_" .. name .. ".npy"), bytes_of(path))
      os.remove(path)
    end
  end)

  it("hold any view in its own order", function()
    local path = os.tmpname()
    local t = atomo.arange(24):view(2, 3, 4):transpose(1, 3):narrow(1, 2, 2)
    t:save_npy(path)
    assert.same(t:totable(), atomo.from_npy(path):totable())
    os.remove(path)
  end)

  it("are refused with file, offset, found and expected", function()
    local f4 = bytes_of(golden .. "npy_f4.npy")
    fails("", "ends at offset 0, expected 10 more bytes")
    fails("PNG" .. f4:sub(4), "offset 0: found 50 4e 47")
    fails(f4:sub(1, 6) .. "\4" .. f4:sub(8), "offset 6: version 4, expected 1 to 3")
    fails(f4:sub(1, -2), "is 223 bytes, expected 224 by its header <f4 %[2,3,4%]")
    fails(f4 .. "x", "is 225 bytes, expected 224 by its header <f4 %[2,3,4%]")
    fails(f4:sub(1, 40), "offset 8: a header of 118 bytes")
    fails(npy "{'descr': '<f4', 'fortran_order': 1, 'shape': (), }", "expected True or False")
    fails(npy "{'descr': '<f4', 'shape': (), }", "lacks fortran_order")
    fails(npy "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
      "offset %d+: found '%-1,%), }.*expected a size")
    fails(npy "{'descr': '<f4', 'fortran_order': False, 'shape': (1e9,), }", "expected ',' or '%)'")
    fails(npy "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }",
      "expected %d+ by its header")
    fails(npy "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "more than 8 dimensions")
    fails(npy "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (), }", "expected a plain type")
    fails(npy("{'descr': '<f16', 'fortran_order': False, 'shape': (), }", ("1"):rep(16)), "holds '<f16', expected bool")
    for name, pattern in pairs {object = "pickle", c8 = "'<c8'", i8_large = "2147483648 does not fit"} do
      assert.error_matches(function() atomo.from_npy(golden .. "npy_" .. name .. ".npy") end, pattern)
    end
    assert.error_matches(function() atomo.from_npy "/nowhere/x.npy" end, "cannot open /nowhere/x.npy: No such file")
    assert.error_matches(function() atomo.from_npy "/tmp" end, "is not a regular file")
    assert.error_matches(function() atomo.from_npy() end, "from_npy: path is missing")
  end)

  it("survive every truncation and single-byte change of the header without a crash", function()
    local f4 = bytes_of(golden .. "npy_f4.npy")
    local path = os.tmpname()
    for i = 1, 128 do
      for _, text in ipairs {f4:sub(1, i), f4:sub(1, i - 1) .. "\255" .. f4:sub(i + 1)} do
        local file = assert(io.open(path, "wb"))
        file:write(text)
        file:close()
        pcall(atomo.from_npy, path)
      end
    end
    os.remove(path)
  end)

  it("leave no temporary file if they cannot be written", function()
    local t = atomo.ones(3)
    assert.error_matches(function() t:save_npy "/nowhere/x.npy" end, "cannot write /nowhere/x.npy")
    assert.error_matches(function() t:save_npy "/dev/null/x" end, "Not a directory")
  end)
end)
