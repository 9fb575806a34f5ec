-- safetensors against the format's own rules, case by case: dtypes, headers, names, metadata, order and padding.
local atomo = require "atomo"
local json = require "atomo.core.json"
local safetensors = require "atomo.tensor.safetensors"
local spawn = require "support.spawn"
local with_file = require "support.with_file"

local function u64(n)
  local bytes = {}
  for i = 1, 8 do bytes[i], n = string.char(n % 256), math.floor(n / 256) end
  return table.concat(bytes)
end

local function file_of(header, data) return u64(#header) .. header .. (data or "") end

local function refused(bytes, pattern, opts)
  with_file(bytes, function(path)
    local ok, text = pcall(function() return safetensors.load(path, opts) end)
    assert.is_false(ok)
    assert.matches("safetensors_format_spec.lua:%d+: safetensors: ", text)
    assert.matches(pattern, text)
    assert.matches(path, text, 1, true)
  end)
end

--- A file of one tensor 'a', U8.
local function one(rest, data) return file_of('{"a":{"dtype":"U8",' .. rest .. "}}", data) end

--- A file of a tensor [n] for each {dtype, bytes, n, name = dtype}, one behind the other.
local function file_of_dtypes(list)
  local entries, data = {}, ""
  for _, e in ipairs(list) do
    entries[#entries + 1] = ('"%s":{"dtype":"%s","shape":[%d],"data_offsets":[%d,%d]}'):format(e.name or e[1], e[1],
      e[3], #data, #data + #e[2])
    data = data .. e[2]
  end
  return file_of("{" .. table.concat(entries, ",") .. "}", data)
end

local values = {
  {"BOOL", "\0\1\1", 3, {0, 1, 1}, "u8"}, {"U8", "\0\255", 2, {0, 255}, "u8"},
  {"I8", "\127\128\255", 3, {127, -128, -1}, "i32"}, {"I16", "\255\127\0\128", 2, {32767, -32768}, "i32"},
  {"U16", "\255\255\1\0", 2, {65535, 1}, "i32"}, {"U32", "\255\255\255\127", 1, {2147483647}, "i32"},
  {"I32", "\0\0\0\128", 1, {-2147483648}, "i32"}, {"I64", "\0\0\0\128\255\255\255\255", 1, {-2147483648}, "i32"},
  {"U64", "\255\255\255\127\0\0\0\0", 1, {2147483647}, "i32"}, {"F16", "\255\123\1\0\0\252", 3, {65504, 2 ^ -24,
    -math.huge}, "f32"}, {"BF16", "\128\191", 1, {-1}, "f32"}, {"F32", "\0\0\192\63", 1, {1.5}, "f32"},
  {"F64", "\0\0\0\0\0\0\240\127\0\0\0\224\255\255\239\71", 2, {math.huge, 3.4028234663852886e38}, "f32"},
  {"F8_E4M3", "\126\1\129\0\56", 5, {448, 2 ^ -9, -2 ^ -9, 0, 1}, "f32"},
  {"F8_E5M2", "\123\1\124\60\188", 5, {57344, 2 ^ -16, math.huge, 1, -1}, "f32"},
  {"F8_E4M3FNUZ", "\127\64\1", 3, {240, 1, 2 ^ -10}, "f32"},
  {"F8_E5M2FNUZ", "\127\64\1", 3, {57344, 1, 2 ^ -17}, "f32"}, {"F8_E8M0", "\127\128\126", 3, {1, 2, 0.5}, "f32"},
}

describe("safetensors: a dtype", function()
  it("is read where the values fit", function()
    with_file(file_of_dtypes(values), function(path)
      local tensors, _, unread = safetensors.load(path)
      assert.same({}, unread)
      for _, e in ipairs(values) do
        assert.same(e[4], tensors[e[1]]:totable(), e[1])
        assert.equal(e[5], tensors[e[1]]:dtype(), e[1])
      end
    end)
  end)

  it("has its NaNs", function()
    local list = {{"F8_E4M3", "\127\255", 2}, {"F8_E5M2", "\125\254", 2}, {"F8_E4M3FNUZ", "\128", 1}, {"F8_E5M2FNUZ",
      "\128", 1}, {"F8_E8M0", "\255", 1}, {"F16", "\1\124", 1}, {"BF16", "\193\127", 1}}
    with_file(file_of_dtypes(list), function(path)
      for name, t in pairs((safetensors.load(path))) do assert.equal(t:numel(), (t:count_nonfinite()), name) end
    end)
  end)

  local unfit = {
    {"I64", "\0\0\0\128\0\0\0\0", 1, "2147483648, does not fit i32"}, {"U32", "\0\0\0\128", 1, "does not fit i32"},
    {"U64", ("\255"):rep(8), 1, "does not fit i32"}, {"BOOL", "\1\2", 2, "element 2, 2, does not fit u8"},
    {"F64", "\0\0\0\0\0\0\240\71", 1, "element 1, 3.4028236692093846e%+38, does not fit f32"},
    {"C64", ("x"):rep(8), 1, "dtype C64, which is not read"}, {"F4", "x", 2, "dtype F4"},
    {"F6_E2M3", "xxx", 4, "dtype F6_E2M3"}, {"F6_E3M2", "xxx", 4, "dtype F6_E3M2"},
  }
  for _, e in ipairs(unfit) do
    it(e[1] .. " that does not fit is named, and the file's other tensors are read", function()
      with_file(file_of_dtypes {{"F32", "\0\0\128\63", 1, name = "one"}, e}, function(path)
        local tensors, _, unread = safetensors.load(path)
        assert.equal(1, tensors.one:item())
        assert.matches(e[4], unread[e[1]])
        assert.error_matches(function() return tensors[e[1]] end, e[4])
        assert.is_nil(tensors.two)
        local count = 0
        for _ in pairs(tensors) do count = count + 1 end
        assert.equal(1, count)
        assert.equal(1, safetensors.load(path, {only = {"one"}}).one:item())
        assert.error_matches(function() safetensors.load(path, {only = {"one", e[1]}}) end, e[4])
      end)
      refused(file_of_dtypes {e}, e[4])
    end)
  end

  it("of more than 8 dimensions is named", function()
    refused(one('"shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]', "x"), "has 9 dimensions")
  end)
end)

describe("safetensors: a header", function()
  local function entry(rest) return '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]' .. rest end

  it("with runs of spaces takes linear time", function()
    local spaces = (" "):rep(400000)
    local text = "{" .. spaces .. '"a"' .. spaces .. ":" .. entry "}":sub(6) .. spaces .. "x"
    local start = os.clock()
    refused(file_of(text), "no JSON object")
    with_file(file_of(entry "}}" .. spaces, "\7"), function(path) assert.equal(7, safetensors.load(path).a:item()) end)
    with_file(file_of("{" .. spaces .. entry "}}":sub(2), "\7"), function(path)
      assert.equal(7, safetensors.load(path).a:item())
    end)
    assert.is_true(spawn.in_time(os.clock() - start, 5)) -- quadratic: minutes
  end)

  local accepted = {
    {"no tensor", file_of "{}"}, {"no tensor, but metadata", file_of '{"__metadata__":{"a":"b"}}'},
    {"an unknown key", file_of(entry ',"note":3}}', "x")},
    {"other white space", file_of('{\n\t"a" : {"shape":[1],"dtype":"U8","data_offsets":[0,1]}}\r\n', "x")},
    {"an empty name", file_of('{"":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', "x")},
    {"a name in UTF-8", file_of('{"\195\164":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', "x")},
    {"empty tensors between others",
      file_of('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32",' ..
      '"shape":[0,3],"data_offsets":[1,1]},"c":{"dtype":"U8","shape":[],"data_offsets":[1,2]}}', "xy")},
    {"data that are not aligned", file_of('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32",' ..
      '"shape":[1],"data_offsets":[1,5]}}', "xyyyy")},
  }
  for _, case in ipairs(accepted) do
    it("is taken with " .. case[1], function() with_file(case[2], safetensors.load) end)
  end

  local wrong = {
    {"of no bytes", file_of "", "begins with ''"}, {"that is an array", file_of "[]", "begins with '%[%]'"},
    {"that begins with a space",
      file_of " {}", "begins with ' {}'"}, {"padded with zeros", file_of "{}\0\0", "offset 2"},
    {"with text behind it",
      file_of "{}x", "offset 2"}, {"longer than 100 MB", u64(100000001) .. "{}", "at most 100000000"},
    {"of 2^63 bytes", "\0\0\0\0\0\0\0\128{}", "a header of 9223372036854775808 bytes"},
    {"with a null entry", file_of '{"a":null}', "'a' is null, expected an object"},
    {"with a number for an entry", file_of '{"a":3}', "'a' is a number"},
    {"with an array for an entry", file_of '{"a":[]}', "'a' is an array"},
    {"with an entry without anything", file_of '{"a":{}}', "'a' has dtype nil"},
    {"with an unknown dtype", file_of('{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,1]}}', "x"), "dtype F31"},
    {"with a shape that is an object", one('"shape":{},"data_offsets":[0,1]', "x"), "no shape"},
    {"with a shape that is null", one('"shape":null,"data_offsets":[0,1]', "x"), "no shape"},
    {"with null in a shape", one('"shape":[null],"data_offsets":[0,1]', "x"), "size null"},
    {"with text in a shape", one('"shape":["1"],"data_offsets":[0,1]', "x"), "size 1 in"},
    {"with a fraction in a shape", one('"shape":[1.0],"data_offsets":[0,1]', "x"), "an integer"},
    {"with an exponent in a shape", one('"shape":[1e0],"data_offsets":[0,1]', "x"), "an integer"},
    {"with a shape that overflows", file_of('{"a":{"dtype":"U8","shape":[4294967296,4294967296,4294967296,0],' ..
      '"data_offsets":[0,0]}}', ""), "too large"},
    {"with one offset", one('"shape":[1],"data_offsets":[0]', "x"), "has 1 data_offsets"},
    {"with three offsets", one('"shape":[1],"data_offsets":[0,1,1]', "x"), "has 3 data_offsets"},
    {"with offsets the wrong way", one('"shape":[1],"data_offsets":[1,0]', "x"), "needs 1 bytes"},
    {"with offsets that are an object", one('"shape":[0],"data_offsets":{}', ""), "no data_offsets"},
    {"with half a byte", file_of('{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}', "x"), "needs 0.5 bytes"},
    {"with a hole behind the last", one('"shape":[0],"data_offsets":[1,1]', "x"), "begins at 1"},
    {"with a name twice",
      file_of('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],' ..
      '"data_offsets":[0,0]}}'), "no key twice"},
    {"with a key twice", file_of('{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'), "no key twice"},
    {"with a name that is no UTF-8",
      file_of '{"\255":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "expected UTF%-8"},
    {"with half a surrogate", file_of [[{"\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}]], "surrogate"},
    {"with a number for metadata", file_of '{"__metadata__":{"a":3}}', "metadata 'a' is a number, expected a string"},
    {"with null for metadata", file_of '{"__metadata__":{"a":null}}', "metadata 'a' is null"},
    {"with a list of metadata", file_of '{"__metadata__":["a"]}', "__metadata__ is no object"},
    {"with text as metadata", file_of '{"__metadata__":"a"}', "__metadata__ is no object"},
    {"with null as metadata", file_of '{"__metadata__":null}', "__metadata__ is no object"},
  }
  for _, case in ipairs(wrong) do
    it("is refused " .. case[1], function() refused(case[2], case[3]) end)
  end

  it("is refused if the path is missing, a folder or not a string", function()
    assert.error_matches(function() safetensors.load "/nowhere/x" end, "safetensors: /nowhere/x: No such file")
    assert.error_matches(function() safetensors.load "/tmp" end, "safetensors: /tmp: Is a directory")
    assert.error_matches(function() safetensors.load(3) end, "path is a number")
  end)
end)

describe("safetensors: load with only", function()
  local bytes = file_of_dtypes {{"U8", "\1", 1, name = "a"}, {"U8", "\2", 1, name = "b"}, {"U8", "\3", 1, name = "c"}}
  it("reads the listed tensors, and refuses unknown names", function()
    with_file(bytes, function(path)
      local tensors = safetensors.load(path, {only = {"c", "a"}})
      assert.equal(1, tensors.a:item())
      assert.is_nil(tensors.b)
      assert.equal(3, tensors.c:item())
      assert.equal(2, safetensors.load(path, {only = "b"}).b:item())
      assert.same({}, (safetensors.load(path, {only = {}})))
    end)
    refused(bytes, "it has no tensor 'd'", {only = {"a", "d"}})
  end)
  it("refuses other options", function()
    with_file(bytes, function(path)
      assert.error_matches(function() safetensors.load(path, {name = "a"}) end, "unknown option 'name', expected only")
      assert.error_matches(function() safetensors.load(path, {only = 3}) end, "only is a number")
    end)
  end)
end)

describe("safetensors: save", function()
  local function header_of(path)
    local file = assert(io.open(path, "rb"))
    local n = 0
    for i, byte in ipairs {file:read(8):byte(1, 8)} do n = n + byte * 256 ^ (i - 1) end
    local text = file:read(n)
    file:close()
    return json.decode(text), text
  end

  it("orders tensors by alignment, then by name, and pads with spaces", function()
    with_file("", function(path)
      safetensors.save(path, {b = atomo.zeros(1), a = atomo.zeros(3, "u8"), c = atomo.zeros(2, "i32"),
        e = atomo.zeros(0), d = atomo.full({}, 2)})
      local header, text = header_of(path)
      assert.same({0, 4}, header.b.data_offsets)
      assert.same({4, 12}, header.c.data_offsets)
      assert.same({12, 16}, header.d.data_offsets)
      assert.same({16, 16}, header.e.data_offsets)
      assert.same({16, 19}, header.a.data_offsets)
      assert.equal(0, (#text + 8) % 64)
      assert.matches("^{.*} *$", text)
      assert.equal(2, safetensors.load(path).d:item())
    end)
  end)

  it("writes no tensors, and metadata alone", function()
    with_file("", function(path)
      safetensors.save(path, {}, {k = "\195\164\n\"\0"})
      local tensors, metadata = safetensors.load(path)
      assert.is_nil(next(tensors))
      assert.same({k = "\195\164\n\"\0"}, metadata)
    end)
  end)

  it("refuses names and metadata that the format does not have", function()
    local t = atomo.zeros(1)
    for _, case in ipairs {{{["\255"] = t}, nil, "is no UTF%-8"}, {{t}, nil, "is a number, expected a string"},
      {{__metadata__ = t}, nil, "cannot be called __metadata__"}, {{a = 3}, nil, "'a' is a number"},
      {{}, {a = 3}, "metadata 'a' is a number"}, {{}, {"x"}, "key of the metadata is a number"},
      {{}, {a = "\255"}, "is no UTF%-8"}, {{}, {["\255"] = "a"}, "is no UTF%-8"}} do
      with_file("old", function(path)
        assert.error_matches(function() safetensors.save(path, case[1], case[2]) end, case[3])
        local file = assert(io.open(path, "rb"))
        assert.equal("old", file:read "*a")
        file:close()
      end)
    end
  end)
end)
