-- Text as data: ids, windows, sharding over ranks; a short training with scripts/train_lm.lua's parts.
local atomo = require "atomo"
local fails = require "support.fails"
local with_file = require "support.with_file"
local text = atomo.text

describe("text", function()
  it("becomes ids and back, split at its end", function()
    local t = text.of("abracadabra", 0.2)
    assert.equal(5, t.vocab)
    assert.same({0, 1, 4, 0, 2, 0, 3, 0, 1}, t.train:totable())
    assert.same({4, 0}, t.test:totable())
    assert.equal("cab", t:decode(t:encode "cab"))
    fails("byte 2 (\"x\") does not occur", t.encode, t, "ax")
  end)

  it("names a file that is missing or empty", function()
    fails("text: no_such_file", text.open, "no_such_file")
    for _, bytes in ipairs {"", "a"} do
      with_file(bytes, function(path)
        fails(("text: %s has %d bytes, expected 2 or more"):format(path, #bytes), text.open, path)
      end)
    end
  end)

  it("is read whole, whatever its bytes are", function()
    local all = {}
    for b = 0, 255 do all[#all + 1] = string.char(b) end
    for _, bytes in ipairs {"no newline", "a\r\nb\r\n", "a\0b\0", "\255\254\195(\n", "\239\187\191bom", "\26ab",
        ("x"):rep(3000000) .. "y", table.concat(all)} do
      with_file(bytes, function(path)
        local t = text.open(path, 0)
        assert.equal(#bytes, t.train:numel())
        assert.is_true(t:decode(t.train) == bytes)
      end)
    end
  end)

  it("is refused if it cannot be read completely", function()
    fails("text: tests: Is a directory", text.open, "tests")
    fails("text: /proc/self/mem: Input/output error", text.open, "/proc/self/mem")
    with_file("", function(path)
      assert.equal(0, os.execute("truncate -s 3G " .. path))
      fails(("text: %s has 3221225472 bytes, expected at most"):format(path), text.open, path)
    end)
    fails("path is a number, expected a string", text.open, 5)
    fails("got a nil, expected a string", text.of)
    for _, share in ipairs {1, -0.1, 0 / 0, "half", false} do fails("test_share is", text.of, "abc", share) end
  end)

  it("is refused if the file grows or shrinks while it is read", function()
    with_file("some text", function(path)
      local open = io.open
      for _, later in ipairs {"some", "some text and more"} do
        finally(function() io.open = open end) -- luacheck: ignore 122
        io.open = function(name, mode) -- luacheck: ignore 122
          local file = open(name, mode)
          return {
            seek = function(_, ...) return file:seek(...) end, close = function() return file:close() end,
            read = function(_, ...)
              local bytes = file:read(...)
              local change = open(name, "wb")
              change:write(later)
              change:close()
              return bytes
            end,
          }
        end
        local ok, message = pcall(text.open, path)
        io.open = open -- luacheck: ignore 122
        assert.is_false(ok)
        assert.matches("it changed meanwhile", message)
        local file = open(path, "wb")
        file:write "some text"
        file:close()
      end
    end)
  end)

  it("loader gives every window once an epoch, over any number of ranks", function()
    local tokens = atomo.arange(7 * 13 + 1):int()
    local function starts(size, epoch)
      local seen, rows = {}, {}
      for rank = 0, size - 1 do
        local loader = text.loader {tokens = tokens, batch = 3, length = 7, rank = rank, size = size, seed = 5}
        assert.equal(math.ceil(13 / (3 * size)), loader.steps)
        for b in loader:epoch(epoch) do
          for i = 1, b.n do
            local x, y = b.x:select(1, i):totable(), b.y:select(1, i):totable()
            for k = 1, 7 do assert.equal(x[k] + 1, y[k]) end
            assert.is_nil(seen[x[1]])
            seen[x[1]] = true
            rows[#rows + 1] = x[1]
          end
        end
      end
      assert.equal(13, #rows)
      return table.concat(rows, " ")
    end
    local one = starts(1, 1)
    assert.equal(one, starts(1, 1))
    assert.is_true(one ~= starts(1, 2))
    starts(2, 1)
    starts(4, 1)
  end)

  it("loader continues from a step", function()
    local loader = text.loader {tokens = atomo.arange(50):int(), batch = 2, length = 4, seed = 1}
    local function from(first)
      local rows = {}
      for b in loader:epoch(3, first) do
        rows[#rows + 1] = b.index .. ":" .. table.concat(b.x:view(-1):totable(), " ")
      end
      return rows
    end
    local all, rest = from(), from(4)
    for i, row in ipairs(rest) do assert.equal(all[i + 3], row) end
    assert.equal(#all - 3, #rest)
  end)

  it("loader refuses invalid options", function()
    local tokens = atomo.arange(8):int()
    fails("the text has 8 ids, expected at least length + 1 = 9", text.loader, {tokens = tokens, length = 8})
    fails("batch is 0", text.loader, {tokens = tokens, length = 4, batch = 0})
    fails("unknown option 'len'", text.loader, {tokens = tokens, len = 4})
    fails("tokens is missing", text.loader, {})
  end)

  it("trains a transformer to below the text's letter frequencies", function()
    atomo.manual_seed(1)
    local t = text.of(("the quick brown fox jumps over the lazy dog. "):rep(40))
    local function loader(tokens, shuffle)
      return text.loader {tokens = tokens, batch = 8, length = 16, shuffle = shuffle}
    end
    local model = require("models.transformer").transformer {vocab = t.vocab, width = 32, layers = 1, heads = 2,
      length = 16}
    local info = atomo.train {model = model, data = {train = loader(t.train), test = loader(t.test, false)},
      optimizer = atomo.optim.adamw {params = atomo.optim.no_decay_groups(model), lr = 0.01}, epochs = 6,
      clip_norm = 1, quiet = true, exchange = atomo.exchange {compress = "none"}}
    assert.is_true(info.test_loss < 1, ("test loss %g"):format(info.test_loss))
    assert.is_true(info.test_accuracy > 0.6)
  end)
end)
