-- safetensors: round trips, types of other programs, and the files that the format's rules refuse.
local atomo = require "atomo"
local safetensors = require "atomo.tensor.safetensors"
local with_file = require "support.with_file"

local function u64(n) return string.char(n % 256, math.floor(n / 256) % 256) .. ("\0"):rep(6) end

local function file_of(header, data) return u64(#header) .. header .. (data or "") end

describe("safetensors", function()
  it("round-trips tensors and metadata, data at a multiple of 64", function()
    with_file("", function(path)
      local a, b, c = atomo.randn(3, 5), atomo.arange(4):int(), atomo.tensor({1, 255}, "u8")
      safetensors.save(path, {a = a, ["b.c"] = b, c = c, none = atomo.zeros(0, 3), turned = a:t(),
        one = atomo.full({}, 7)}, {note = "x"})
      local t, metadata = safetensors.load(path)
      assert.equal(a:bytes(), t.a:bytes())
      assert.same(b:totable(), t["b.c"]:totable())
      assert.equal("u8", t.c:dtype())
      assert.same({0, 3}, t.none:shape())
      assert.same(a:t():totable(), t.turned:totable())
      assert.equal(7, t.one:item())
      assert.same({note = "x"}, metadata)
      local file = assert(io.open(path, "rb"))
      local n = file:read(8):byte(1, 2)
      file:close()
      assert.equal(0, (n + 8) % 64)
    end)
  end)

  it("reads the types of other programs", function()
    local header = '{"h":{"dtype":"F16","shape":[3],"data_offsets":[0,6]},' ..
      '"b":{"dtype":"BF16","shape":[1],"data_offsets":[6,8]},"d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},' ..
      '"i":{"dtype":"I64","shape":[],"data_offsets":[16,24]}}'
    local data = "\0\60\0\192\1\0" .. "\128\63" .. "\0\0\0\0\0\0\248\63" .. "\254\255\255\255\255\255\255\255"
    with_file(file_of(header, data), function(path)
      local t = safetensors.load(path)
      assert.same({1, -2, 2 ^ -24}, t.h:totable())
      assert.same({1}, t.b:totable())
      assert.same({1.5}, t.d:totable())
      assert.equal(-2, t.i:item())
    end)
  end)

  local bad = {
    {"a short file", "abc", "the file has 3 bytes"},
    {"a header longer than the file", u64(1000) .. "{}", "a header of 1000 bytes"},
    {"no JSON", file_of "{nope", "no JSON object"},
    {"an unknown type", file_of('{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}', ("x"):rep(8)), "dtype C64"},
    {"a shape that does not fit", file_of('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', ("x"):rep(8)),
      "needs 12 bytes"},
    {"a gap", file_of('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', "xx"), "begins at 1"},
    {"an overlap", file_of('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],' ..
      '"data_offsets":[1,2]}}', "xx"), "begins at 1"},
    {"trailing bytes", file_of('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "xx"), "the tensors end at"},
    {"missing bytes", file_of('{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}', "xx"), "the tensors end at"},
    {"a negative size", file_of('{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', "x"), "size %-1"},
  }
  for _, case in ipairs(bad) do
    it("refuses " .. case[1], function()
      with_file(case[2], function(path)
        local ok, text = pcall(safetensors.load, path)
        assert.is_false(ok)
        assert.matches(case[3], text)
      end)
    end)
  end

  it("leaves the old file if the new one cannot be written", function()
    with_file("old", function(path)
      assert.has_error(function() safetensors.save(path .. "/x", {a = atomo.zeros(1)}) end)
      assert.has_error(function() safetensors.save(path, {a = atomo.zeros(1)}, {n = 3}) end)
      local file = assert(io.open(path, "rb"))
      assert.equal("old", file:read "*a")
      file:close()
    end)
  end)
end)
