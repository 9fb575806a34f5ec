-- .npz files: those that numpy writes (tests/golden/make_npz.py), and archives made here, sound and damaged.
local atomo = require "atomo"
local with_file = require "support.with_file"
local bit = require "bit"
local golden = require "support.root" .. "tests/golden/"

local function little(n, bytes)
  local out = {}
  for i = 1, bytes do out[i], n = string.char(n % 256), math.floor(n / 256) end
  return table.concat(out)
end

local function read_golden(name)
  local file = assert(io.open(golden .. name, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

local function npy(value)
  local dict = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }   \n"
  return "\147NUMPY\1\0" .. little(#dict, 2) .. dict .. string.char(value)
end

local function crc32(bytes)
  local crc = -1
  for i = 1, #bytes do
    crc = bit.bxor(crc, bytes:byte(i))
    for _ = 1, 8 do
      crc = bit.bxor(bit.rshift(crc, 1), bit.band(crc, 1) == 1 and 0xEDB88320 or 0)
    end
  end
  return bit.bnot(crc) % 2 ^ 32
end

--- bytes as a deflate stream of one block that is stored
local function deflated(bytes) return "\1" .. little(#bytes, 2) .. little(65535 - #bytes, 2) .. bytes end

--- One member's header in the file with its data, and its entry in the directory. m.local_* differ in the former.
local function member_of(m, at)
  local data = m.data or npy(m.value or 7)
  local packed, method, flags = m.packed or data, m.method or 0, m.flags or 0
  local crc, name, size = m.crc or crc32(data), m.name or "a.npy", m.size or #data
  local wide = m.wide and "\1\0\16\0" .. little(size, 8) .. little(#packed, 8) or ""
  local function sizes(in_local)
    if m.wide and (in_local or m.wide == "both") then return ("\255"):rep(8) end
    if in_local and m.late then return little(0, 8) end
    if not in_local then return little(m.claimed or #packed, 4) .. little(size, 4) end
    return little(m.local_packed or m.claimed or #packed, 4) .. little(m.local_size or size, 4)
  end
  local head = "PK\3\4\45\0" .. little(m.local_flags or flags, 2) .. little(m.local_method or method, 2) .. little(0, 4)
    .. little(m.late and 0 or m.local_crc or crc, 4) .. sizes(true) .. little(#(m.local_name or name), 2)
    .. little(#wide, 2) .. (m.local_name or name) .. wide
  local extra = m.wide == "both" and wide or m.extra or ""
  local entry = "PK\1\2\45\3\45\0" .. little(flags, 2) .. little(method, 2) .. little(0, 4) .. little(crc, 4) .. sizes()
    .. little(#name, 2) .. little(#extra, 2) .. little(0, 12 - 2) .. little(m.at or at, 4) .. name .. extra
  return head .. packed .. (m.late or ""), entry
end

--- An archive of these members; `edit` changes the numbers of its end record.
local function zip(members, edit)
  local body, directory = "", ""
  for _, m in ipairs(members) do
    local data, entry = member_of(m, #body)
    body, directory = body .. data, directory .. entry
  end
  local e = {disk = 0, count = #members, bytes = #directory, offset = #body, comment = "", between = ""}
  for key, value in pairs(edit or {}) do e[key] = value end
  return body .. directory .. e.between .. "PK\5\6" .. little(e.disk, 2) .. little(0, 2) .. little(e.here or e.count, 2)
    .. little(e.count, 2) .. little(e.bytes, 4) .. little(e.offset, 4) .. little(e.length or #e.comment, 2)
    .. e.comment, #body, #directory
end

local function reads(bytes, expected, opts)
  with_file(bytes, function(path)
    local got = {}
    for name, t in pairs((atomo.from_npz(path, opts))) do got[name] = t:item() end
    assert.same(expected, got)
  end)
end

local function refused(bytes, pattern, opts)
  with_file(bytes, function(path)
    local ok, text = pcall(function() return atomo.from_npz(path, opts) end)
    assert.is_false(ok)
    assert.matches("npz_spec.lua:%d+: np[yz]: ", text)
    assert.matches(path, text, 1, true)
    assert.matches(pattern, text)
  end)
end

describe("npz files of numpy", function()
  local expected = {
    weight = {"f32", {2, 3}, {0, 0.25, 0.5, 0.75, 1, 1.25}}, turned = {"i32", {3, 2}, {1, 2, 3, 4, 5, 6}},
    half = {"f32", {2}, {0.5, -2}}, big = {"i32", {2}, {1, -2}}, scalar = {"f32", {}, {2.5}},
    yes = {"u8", {2}, {1, 0}}, empty = {"f32", {0, 3}, {}}, u = {"u8", {3}, {0, 1, 2}},
  }

  local function equal(tensors)
    for name, e in pairs(expected) do
      assert.same(e, {tensors[name]:dtype(), tensors[name]:shape(), tensors[name]:reshape(-1):totable()}, name)
    end
  end

  it("are read, stored and deflated", function()
    local tensors, unread = atomo.from_npz(golden .. "npz_stored.npz")
    equal(tensors)
    assert.same({}, unread)
    tensors = atomo.from_npz(golden .. "npz_deflated.npz")
    equal(tensors)
    assert.same({40, 50}, tensors.zeros:shape())
    assert.equal(0, tensors.zeros:norm_value())
  end)

  it("are read with their sizes behind the data", function()
    local tensors = atomo.from_npz(golden .. "npz_piped.npz")
    assert.same(expected.weight[3], tensors.arr_0:reshape(-1):totable())
    assert.same({0, 1, 2}, tensors.arr_1:totable())
  end)

  it("give the arrays that were asked for", function()
    local tensors = atomo.from_npz(golden .. "npz_stored.npz", {only = {"u", "half"}})
    local names = {}
    for name in pairs(tensors) do names[#names + 1] = name end
    table.sort(names)
    assert.same({"half", "u"}, names)
    refused(read_golden "npz_stored.npz", "it has no tensor 'x'", {only = "x"})
    local path = golden .. "npz_stored.npz"
    assert.error_matches(function() atomo.from_npz(path, {onyl = "u"}) end, "npz: unknown option 'onyl', expected only")
    assert.error_matches(function() atomo.from_npz(path, "u") end, "npz: options are a string, expected a table")
  end)

  it("name the members that no tensor holds", function()
    local path = golden .. "npz_unfit.npz"
    local tensors, unread = atomo.from_npz(path)
    assert.equal(1, tensors.fine:item())
    for name, pattern in pairs {complex = "'<c8' %(complex", text = "'<U2' %(texts", object = "'|O' %(Python objects",
        large = "2147483648 does not fit i32", record = "not a record"} do
      assert.matches(pattern, unread[name])
      assert.error_matches(function() return tensors[name] end, "npz: .*'" .. name .. "' .*" .. pattern)
      assert.error_matches(function() atomo.from_npz(path, {only = name}) end, "'" .. name .. "' .*" .. pattern)
    end
    assert.is_nil(tensors.other)
  end)

  it("are distinguished from npy files", function()
    assert.error_matches(function() atomo.from_npy(golden .. "npz_stored.npz") end, "is an %.npz: use atomo%.from_npz")
    assert.error_matches(function() atomo.from_npz(golden .. "npy_f4.npy") end, "is an %.npy: use atomo%.from_npy")
    assert.error_matches(function() atomo.from_npz(5) end, "from_npz: path is a number, expected a string")
    assert.error_matches(function() atomo.from_npz "no_such.npz" end, "cannot open no_such.npz")
  end)

  it("are refused wherever they are cut or a byte is changed, or give the same", function()
    for _, name in ipairs {"npz_piped.npz", "npz_deflated.npz"} do
      local bytes = read_golden(name)
      for cut = 0, #bytes - 1, name == "npz_piped.npz" and 1 or 13 do refused(bytes:sub(1, cut), "npz: ") end
    end
    local bytes, same, count = read_golden "npz_piped.npz", 0, 0
    for i = 1, #bytes do
      with_file(bytes:sub(1, i - 1) .. string.char((bytes:byte(i) + 85) % 256) .. bytes:sub(i + 1), function(path)
        local ok, tensors = pcall(atomo.from_npz, path)
        count = count + 1
        if ok then
          same = same + 1
          assert.same(expected.weight[3], tensors.arr_0:reshape(-1):totable())
          assert.same({0, 1, 2}, tensors.arr_1:totable())
        end
      end)
    end
    assert.is_true(same < count / 5, ("%d of %d changes went unseen"):format(same, count)) -- dates, versions, ...
  end)
end)

describe("npz archives", function()
  it("are read in every form that zip allows", function()
    local data = npy(7)
    reads(zip {{}}, {a = 7})
    reads(zip {{packed = deflated(data), method = 8}}, {a = 7})
    reads(zip {{name = "a"}, {name = "b.npy", value = 8}, {name = ".npy", value = 9}}, {a = 7, b = 8, [".npy"] = 9})
    reads(zip {{wide = "local"}, {name = "b.npy", wide = "both"}}, {a = 7, b = 7}) -- Python's force_zip64
    local crc, n = little(crc32(data), 4), #data
    for _, late in ipairs {crc .. little(n, 4):rep(2), crc .. little(n, 8):rep(2)} do
      for _, sign in ipairs {"", "PK\7\8"} do
        reads(zip {{flags = 8, late = sign .. late}, {name = "b"}}, {a = 7, b = 7})
      end
    end
    reads(zip({{}}, {comment = "a comment PK\5\6"}), {a = 7})
    reads(zip({}), {})
    reads(zip {{name = "å.npy", flags = 2048}}, {["å"] = 7})
  end)

  local function end64(edit)
    local _, offset, bytes = zip {{}}
    local e = {at = offset + bytes, length = 44, count = 1, bytes = bytes, offset = offset}
    for key, value in pairs(edit or {}) do e[key] = value end
    return zip({{}}, {count = e.count32 or 65535, bytes = 2 ^ 32 - 1, offset = 2 ^ 32 - 1, between = "PK\6\6"
      .. little(e.length, 8) .. "\45\0\45\0" .. little(0, 8) .. little(e.count, 8) .. little(e.count, 8)
      .. little(e.bytes, 8) .. little(e.offset, 8) .. "PK\6\7" .. little(0, 4) .. little(e.at, 8) .. little(1, 4)})
  end

  it("are read with an end record of 64 bits, and refused if it is wrong", function()
    reads(end64(), {a = 7})
    refused(end64 {at = 0}, "offset 0: no zip64 end record")
    refused(end64 {at = 2 ^ 52}, "a zip64 end record at offset 4503599627370496, expected one before")
    refused(end64 {length = 45}, "no zip64 end record that reaches")
    refused(end64 {count = 2}, "2 members, a directory of %d+ bytes has at most 1")
    refused(end64 {count32 = 2}, "the two end records differ")
    refused(end64 {offset = 3}, "expected it to end at offset")
    refused(end64 {bytes = 2 ^ 52}, "a directory of 4503599627370496 bytes")
  end)

  it("are refused if the end record is wrong", function()
    refused("", "no end record")
    refused(("x"):rep(70000), "no end record of a zip archive in its last 65557 bytes")
    refused(zip({{}}, {length = 3}), "no end record")
    refused(zip({{}}, {disk = 1}), "part of an archive of several files")
    refused(zip({{}}, {here = 0}), "part of an archive of several files")
    refused(zip({{}}, {count = 0}), "a directory of %d+ bytes, its 0 members take 0")
    refused(zip({{}}, {count = 2}), "2 members, a directory of %d+ bytes has at most 1")
    refused(zip({{}}, {offset = 2 ^ 31}), "a directory of %d+ bytes at offset 2147483648, expected it to end at")
    refused(zip({{}}, {bytes = 5}), "a directory of 5 bytes at offset %d+, expected it to end at")
    refused("x" .. zip {{}}, "expected it to end at")
  end)

  it("are refused if a member's place or sizes are wrong", function()
    refused(zip {{at = 2 ^ 31}}, "'a.npy' at offset 2147483648, expected it before the directory")
    refused(zip {{at = 1}}, "'a.npy': no header at offset 1")
    refused(zip {{claimed = 2 ^ 31}}, "no header at offset 0 with 2147483648 bytes behind it")
    refused(zip {{local_packed = 5}},
      "its header at offset 0 %(5 bytes, 72 unpacked%) differs from the directory's %(72, 72%)")
    for _, m in ipairs {{local_size = 5}, {local_crc = 5}, {local_flags = 1}, {local_method = 8},
        {local_name = "b.npy"}, {local_name = "aa.npy"}} do
      refused(zip {m}, "'a.npy': its header at offset 0 .* differs from the directory's")
    end
    refused(zip {{}, {name = "b.npy", at = 0, local_name = "b.npy"}}, "'[ab].npy'")
    refused(zip {{}, {at = 0}}, "'a.npy' at offset 0 overlaps 'a.npy', which ends at")
    refused(zip {{flags = 8, late = "PK\7\8" .. little(5, 12)}}, "after the data differ from the directory's")
    refused(zip {{size = 2 ^ 32 - 1}}, "'a.npy' lacks a valid zip64 field")
    refused(zip {{size = 2 ^ 32 - 1, extra = "\1\0\4\0abcd"}}, "'a.npy' lacks a valid zip64 field")
    refused(zip {{size = 2 ^ 32 - 1, extra = "\1\0\8\0" .. ("\255"):rep(8)}}, "'a.npy' lacks a valid zip64 field")
    refused(zip {{name = ""}}, "a name that is empty or holds a zero byte")
    refused(zip {{name = "a\0b"}}, "a name that is empty or holds a zero byte")
    refused(zip {{}, {}}, "two members are 'a' %(a.npy, a.npy%)")
    refused(zip {{}, {name = "a"}}, "two members are 'a' %(a.npy, a%)")
  end)

  it("are refused if a member's checksum or length is wrong", function()
    local data = npy(7)
    refused(zip {{crc = 5}}, "'a.npy': CRC%-32 %x+, expected 00000005: it is damaged")
    refused(zip {{size = 71}}, "'a.npy': 71 bytes cannot be unpacked from 72 stored ones")
    refused(zip {{packed = deflated(data), method = 8, size = 2 ^ 31}}, "cannot be unpacked from 77 deflated ones")
    refused(zip {{packed = deflated(data), method = 8, size = 73}}, "'a.npy' ends at offset 72, expected 1 more bytes")
    refused(zip {{data = data .. "x"}}, "'a.npy' is 73 bytes, expected 72 by its header |u1 %[1%]")
    refused(zip {{packed = deflated(data .. "x"), data = data, method = 8}}, "'a.npy' continues after offset 72")
    refused(zip {{packed = deflated(data) .. "x", method = 8}}, "'a.npy': 1 bytes follow the packed ones")
    refused(zip {{packed = deflated(data):sub(1, -2), method = 8}}, "the packed bytes end at offset 71, before their")
    refused(zip {{packed = "\7" .. deflated(data), method = 8}}, "damaged packed bytes at offset 0: invalid block type")
    for _, flags in ipairs {1, 64, 8192} do refused(zip {{flags = flags}}, "'a.npy' is encrypted, expected it") end
    refused(zip {{method = 12}}, "'a.npy' is compressed by method 12 %(bzip2%), expected 0 %(stored%) or 8 %(deflate%)")
    refused(zip {{method = 99}}, "'a.npy' is compressed by method 99, expected 0")
    refused(zip {{}, {name = "notes.txt", data = "remember the milk"}}, "'notes.txt': offset 0: found 72 65 .*NUMPY")
    refused(zip {{}, {name = "b", data = "PK"}}, "'b' ends at offset 2, expected 8 more bytes")
    reads(zip {{}, {name = "notes.txt", data = "remember the milk"}}, {a = 7}, {only = "a"})
  end)

  it("leave no memory behind when they are refused", function()
    local bad = zip {{}, {name = "b.npy", crc = 5}}
    refused(bad, "CRC")
    collectgarbage()
    collectgarbage()
    local before = atomo.mem().live
    for _ = 1, 20 do refused(bad, "CRC") end
    collectgarbage()
    collectgarbage()
    assert.equal(before, atomo.mem().live)
  end)
end)
