-- Byte-pair encodings: pre-tokens, merges learned from a text, files, and any bytes encoded and decoded.
local atomo = require "atomo"
local fails = require "support.fails"
local read = require("support.shell").content
local pretokens = require "atomo.data.pretokens"
local with_file = require "support.with_file"
local text = atomo.text

local function cut(bytes)
  local list = {}
  for token in pretokens.each(bytes) do list[#list + 1] = token end
  return list
end

--- Pseudo-random bytes: of the whole range, or of few letters, so that merges occur.
local function some_bytes(n, seed, letters)
  local parts, state = {}, seed
  for i = 1, n do
    state = (state * 1103515245 + 12345) % 2 ^ 31
    local k = math.floor(state / 2 ^ 12)
    if letters then
      local at = k % #letters + 1
      parts[i] = letters:sub(at, at)
    else
      parts[i] = string.char(k % 256)
    end
  end
  return table.concat(parts)
end

describe("pre-tokens", function()
  it("are GPT-2's in ASCII", function()
    assert.same({"Hello", ",", " world", "!", "  ", " It", "'s", " 42", "nd", " -", "3", "\n\n", "\t", "x"},
      cut "Hello, world!   It's 42nd -3\n\n\tx")
    assert.same({"we", "'ll", " they", "'re", " I", "'m", " '", "quote", "'", "  "}, cut "we'll they're I'm 'quote'  ")
    assert.same({"'", "S", " ", " a", "\n", "b"}, cut "'S  a\nb")
  end)

  it("keep bytes from 128 on with the letters, and have at most 256 bytes", function()
    assert.same({"na\195\175ve", " caf\195\169", "."}, cut "na\195\175ve caf\195\169.")
    local list = cut(("x"):rep(600) .. "1")
    assert.same({256, 256, 88, 1}, {#list[1], #list[2], #list[3], #list[4]})
  end)
end)

describe("vocabulary", function()
  it("merges the most frequent pair first, of equally frequent ones that of the smaller ids", function()
    -- "abab" twice and "bc" three times: ab 4 times, bc 3, then abab 2
    local v = text.train_vocabulary("abab-abab-bc-bc-bc", 300)
    assert.equal(260, v.size)
    assert.same({"ab", "bc", "abab", "<|endoftext|>"}, {unpack(v.strings, 257, 260)})
    assert.same({258, 12, 257, 12, 64, 66}, v:encode("abab-bc-ac"):totable()) -- "-" is 12, "a" 64
  end)

  it("counts pairs that overlap in themselves as they are merged", function()
    local v = text.train_vocabulary("aaaaa aaaaa aaaaa", 400)
    assert.equal("aaaaa aaa aaaaaaa", v:decode(v:encode "aaaaa aaa aaaaaaa"))
    assert.equal(1, v:encode("aaaaa"):numel())
    assert.equal(1, v:encode(" aaaaa"):numel())
  end)

  it("is what counting all pairs again for every merge gives", function()
    local bytes = some_bytes(3000, 7, "aab bcd  e'")
    local v = text.train_vocabulary(bytes, 330)
    local words, id, strings = {}, {}, {}
    for i = 1, 256 do strings[i], id[v.strings[i]] = v.strings[i], i - 1 end
    for token in pretokens.each(bytes) do
      local ids = {}
      for i = 1, #token do ids[i] = id[token:sub(i, i)] end
      words[#words + 1] = ids
    end
    for k, merge in ipairs(v.merges) do
      local counts, best = {}, nil
      for _, ids in ipairs(words) do
        for i = 1, #ids - 1 do
          local key = ids[i] * 65536 + ids[i + 1]
          counts[key] = (counts[key] or 0) + 1
          if not best or counts[key] > counts[best] then best = key end
        end
      end
      for key, n in pairs(counts) do
        if n == counts[best] and key < best then best = key end
      end
      local a, b = math.floor(best / 65536), best % 65536
      assert.same({a, b}, merge, "merge " .. k)
      local token = strings[a + 1] .. strings[b + 1]
      if not id[token] then
        id[token], strings[#strings + 1] = #strings, token
      end
      for _, ids in ipairs(words) do
        local i = 1
        while i < #ids do
          if ids[i] == a and ids[i + 1] == b then
            ids[i] = id[token]
            table.remove(ids, i + 1)
          end
          i = i + 1
        end
      end
    end
    assert.is_true(#v.merges >= 330 - 257)
  end)

  it("encodes and decodes any bytes, before and after a file", function()
    local sample = some_bytes(20000, 3, "the quick brown fox's 12 tails\n") .. some_bytes(5000, 4)
    local v = text.train_vocabulary(sample, 500)
    with_file("", function(path)
      v:save(path)
      local again = text.vocabulary(path)
      assert.equal(v.size, again.size)
      for round = 1, 60 do
        local bytes = some_bytes(round * 17, round, round % 3 == 0 and "the fox's\n\r\t 12" or nil)
        local ids = v:encode(bytes)
        assert.is_true(v:decode(ids) == bytes, "round " .. round)
        assert.same(ids:totable(), again:encode(bytes):totable())
        if #bytes > 0 then assert.is_true(ids:max():item() < v.size - 1) end
      end
      local first = read(path)
      again:save(path)
      assert.equal(first, read(path))
      text.train_vocabulary(sample, 500):save(path)
      assert.equal(first, read(path))
    end)
    assert.equal(0, v:encode(""):numel())
    assert.equal("", v:decode {})
    assert.equal("<|endoftext|>", v:decode {v.size - 1})
  end)

  it("has GPT-2's characters and ids in its file", function()
    with_file("#version: 0.2\n\196\160 t\n\196\160t h\n\196\138 \196\128\n\195\191 \194\161\n", function(path)
      local v = text.vocabulary(path)
      assert.equal(261, v.size)
      assert.same({" t", " th", "\n\0", "\255\161"}, {unpack(v.strings, 257, 260)})
      assert.same({"!", "~", "\161", "\255", "\0", " ", "\173"}, {v.strings[1], v.strings[94], v.strings[95],
        v.strings[188], v.strings[189], v.strings[221], v.strings[256]}) -- ids of GPT-2's vocab.json, plus 1
      assert.same({257, 68}, v:encode(" the"):totable())
    end)
  end)

  it("names what is wrong in a file", function()
    for content, problem in pairs {
      ["#version: 0.2\na b\nab\n"] = "line 3: 'ab', expected two tokens",
      ["#version: 0.2\na b\nabc d\n"] = "line 3: 'abc' is neither a byte nor made by a line above",
      ["a b\na b\n"] = "line 2: 'a b' is a second time here",
      ["a b\nb \1\n"] = "line 2: '\1' is neither",
      ["a b\nb c"] = "the last line is not complete",
      ["a b\n\n"] = "line 2: '', expected two tokens",
    } do
      with_file(content, function(path) fails({"vocabulary: " .. path, problem}, text.vocabulary, path) end)
    end
    fails("vocabulary: no_such_file", text.vocabulary, "no_such_file")
    fails("vocabulary: tests: Is a directory", text.vocabulary, "tests")
    fails("vocabulary: path is a nil", text.vocabulary)
  end)

  it("refuses other arguments", function()
    fails("train_vocabulary: text is a nil", text.train_vocabulary)
    fails("train_vocabulary: size is 256", text.train_vocabulary, "text", 256)
    local v = text.train_vocabulary("text", 257)
    fails("vocabulary: text is a number", v.encode, v, 5)
    fails("vocabulary: id 257, expected 0 to 256", v.decode, v, {257})
    fails("text: vocabulary is a string", text.of, "some text", 0.1, "merges.txt")
    fails({"vocabulary: ", "no_such_folder/x"}, v.save, v, "no_such_folder/x")
  end)

  it("makes the ids of a text", function()
    local bytes = ("a rose is a rose. "):rep(20)
    local v = text.train_vocabulary(bytes, 264)
    local t = text.of(bytes, 0.25, v)
    assert.equal(264, t.vocab)
    assert.equal(#bytes, t.bytes)
    assert.is_true(t.train:numel() + t.test:numel() < #bytes / 2)
    assert.equal(bytes, t:decode(t.train) .. t:decode(t.test))
    assert.same(v:encode("rose"):totable(), t:encode("rose"):totable())
  end)
end)
