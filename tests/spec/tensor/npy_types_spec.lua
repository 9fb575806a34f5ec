-- .npy files of every dtype, byte order and layout that numpy writes (tests/golden/make_npy.py): read where the values
-- fit, refused by name or by value otherwise.
local atomo = require "atomo"
local with_file = require "support.with_file"
local golden = require "support.root" .. "tests/golden/"

local function npy(dict, data, version)
  dict = dict .. "\n"
  local length = string.char(#dict % 256, math.floor(#dict / 256))
  return "\147NUMPY" .. (version or "\1\0" .. length) .. dict .. (data or "")
end

local function refused(bytes, pattern)
  with_file(bytes, function(path)
    local ok, text = pcall(atomo.from_npy, path)
    assert.is_false(ok)
    assert.matches(pattern, text)
  end)
end

local huge = math.huge
local values = {
  i1 = {-128, 127, 0, -1, 5, 6}, i2 = {-32768, 32767, 0, -1, 5, 6}, i4 = {-2 ^ 31, 2 ^ 31 - 1, 0, -1, 5, 6},
  u1 = {0, 255, 1, 2, 5, 6}, u2 = {0, 65535, 1, 2, 5, 6}, u4 = {0, 2 ^ 31 - 1, 1, 2, 5, 6},
  i8 = {-2 ^ 31, 2 ^ 31 - 1, 0, -1, 5, 6}, u8 = {0, 2 ^ 31 - 1, 1, 2, 5, 6}, b1 = {0, 1, 1, 0, 1, 0},
  f2 = {65504, -0.5, 2 ^ -24, 0, huge, 6}, f4 = {1.5, -0.5, 2 ^ 127, 0, -huge, 6},
  f8 = {1.5, -0.5, 2 ^ 127, 0, -huge, 6},
}

describe("npy files of numpy's types", function()
  it("are read", function()
    local file = assert(io.open(golden .. "npy_types.bin", "rb"))
    local text, at, count = file:read "*a", 1, 0
    file:close()
    while at <= #text do
      local name, dtype, dims, length, body = text:match("^(.(%w%w) %a (%d))\n(%d%d%d%d%d%d%d%d%d%d)()", at)
      with_file(text:sub(body, body + length - 1), function(path)
        local t = atomo.from_npy(path)
        assert.equal(dtype:sub(1, 1) == "f" and "f32" or (dtype == "u1" or dtype == "b1") and "u8" or "i32", t:dtype())
        assert.same(dims == "2" and {2, 3} or {6}, t:shape(), name)
        assert.same(values[dtype], t:reshape(-1):totable(), name)
      end)
      at, count = body + length, count + 1
    end
    assert.equal(63, count)
  end)

  local unfit = {
    {"<u4", "\0\0\0\128", "2147483648 does not fit i32"}, {">u4", "\128\0\0\0", "2147483648 does not fit i32"},
    {"<u8", ("\255"):rep(8), "does not fit i32"}, {">i8", "\255\255\255\0\0\0\0\0", "does not fit i32"},
    {"<f8", "\0\0\0\0\0\0\240\71", "3.4028236692093846e%+38 does not fit f32"}, {"|b1", "\2", "2 does not fit u8"},
    {">f8", "\71\240\0\0\0\0\0\0", "does not fit f32"},
  }
  for _, case in ipairs(unfit) do
    it(("of '%s' beyond the tensor's type are refused with the value"):format(case[1]), function()
      refused(npy(("{'descr': '%s', 'fortran_order': False, 'shape': (1,), }"):format(case[1]), case[2]), case[3])
    end)
  end

  local other = {
    {"<c8", "complex numbers"}, {"|O", "a pickle"}, {"<U3", "texts"}, {"|S3", "texts"}, {"<M8[ns]", "dates"},
    {"<m8[s]", "dates"}, {"|V4", "raw bytes"}, {"<f16", "holds '<f16'"}, {"<i3", "holds '<i3'"}, {"f4", "holds 'f4'"},
    {"<", "holds '<'"}, {"", "lacks descr"},
  }
  for _, case in ipairs(other) do
    it(("of '%s' are refused by name"):format(case[1]), function()
      refused(npy(("{'descr': '%s', 'fortran_order': False, 'shape': (), }"):format(case[1]), "12345678"), case[2])
    end)
  end

  it("have headers of any spacing, order and quotes", function()
    for _, dict in ipairs {
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }", "{'shape':(2,),'fortran_order':False,'descr':'<i2'}",
      "  {\"shape\" : ( 2 , ) ,\n\t\"descr\" : \"<i2\",\r\n\"fortran_order\" : True } ",
      "{'descr': '=i2', 'fortran_order': False, 'shape': (2L,), }",
      "{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }" .. (" "):rep(60000),
    } do
      with_file(npy(dict, "\1\0\255\255"), function(path) assert.same({1, -1}, atomo.from_npy(path):totable()) end)
    end
  end)

  it("have no elements where a size is 0, whatever the others are", function()
    with_file(npy "{'descr': '>f8', 'fortran_order': True, 'shape': (0, 99999999999, 3), }", function(path)
      assert.same({0, 99999999999, 3}, atomo.from_npy(path):shape())
    end)
  end)
end)
