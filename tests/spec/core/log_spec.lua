-- The JSONL log and its reader, numbers for people, tables, the progress line.
local log = require "atomo.core.log"
local read = require("support.shell").read

describe("json", function()
  it("keeps every digit, writes whole numbers whole and NaN and Inf as null", function()
    assert.equal("0.10000000000000001", log.encode(0.1))
    assert.equal("9007199254740993", log.encode(9007199254740993LL))
    assert.equal("9007199254740992", log.encode(2 ^ 53))
    assert.equal("-3", log.encode(-3))
    assert.equal('[null,null,null]', log.encode {0 / 0, 1 / 0, -1 / 0})
    for _, v in ipairs {math.pi, 1e-310, 1.7976931348623157e308, 2 ^ 70, 5e-324, 1 / 3} do
      assert.equal(v, log.decode(log.encode(v)))
    end
  end)

  it("puts event first, then step, epoch, time, then names in order", function()
    assert.equal('{"event":"step","step":1,"epoch":2,"time":0.5,"a":1,"loss":2,"ms":{"data":1}}',
      log.encode {loss = 2, a = 1, time = 0.5, epoch = 2, step = 1, event = "step", ms = {data = 1}})
  end)

  it("escapes text, and turns bytes that are no UTF-8 into U+FFFD", function()
    assert.equal('"a\\"\\\\\\n\\u0001\\u0000é"', log.encode 'a"\\\n\1\0é')
    assert.equal('"\239\191\189x\239\191\189"', log.encode "\255x\192")
    assert.equal('a"\\\n\1\0é', log.decode(log.encode 'a"\\\n\1\0é'))
    assert.equal("\240\159\152\128", log.decode '"\\ud83d\\ude00"')
  end)

  it("tells arrays from objects", function()
    assert.equal("[1,[2],{}]", log.encode {1, {2}, {}})
    assert.equal("[]", log.encode(log.array {}))
    assert.same({x = {1, 2}, y = "z"}, log.decode ' { "x" : [1, 2] , "y":"z", "n":null } ')
    assert.equal(log.null, log.decode("[1,null]")[2])
  end)

  it("refuses values without a JSON form, naming them", function()
    assert.error_matches(function() log.encode {a = {b = print}} end, "value%.a%.b is a function")
    assert.error_matches(function() log.encode {1, 2, x = 3} end, "array of 2 entries that also has the key x")
    local loop = {}
    loop.self = loop
    assert.error_matches(function() log.encode(loop) end, "contains itself")
  end)

  it("decodes strictly, with the offset", function()
    for text, pattern in pairs {
      [""] = "offset 0: found the end, expected a value", ["{"] = "offset 1: found the end, expected a key",
      ['{"a":1,}'] = "offset 7: found '}', expected a key", ["[1 2]"] = "offset 3", ["[1,]"] = "offset 3",
      ["01"] = "offset 1: found '1', expected the end of a number", ["1 x"] = "offset 2", ["nan"] = "offset 0",
      ['"a'] = "expected the end of the text that began at offset 0", ['"\\x"'] = "offset 1.*an escape",
      ['{"a":1,"a":2}'] = "offset 7.*no key twice", ['"\t"'] = "offset 1.*control", ["1e"] = "offset 1",
      ['"\\ud800"'] = "surrogate", ["+1"] = "offset 0", ["tru"] = "offset 0",
    } do
      assert.error_matches(function() log.decode(text) end, pattern)
    end
    assert.error_matches(function() log.decode(("["):rep(100)) end, "deeper nesting than 64")
  end)
end)

describe("log.open", function()
  it("appends lines, each on disk when write returns", function()
    local path = os.tmpname()
    local l = log.open(path)
    l:write {event = "run", time = 0}
    assert.equal('{"event":"run","time":0}\n', read(path))
    l:close()
    l = log.open(path)
    l:write {event = "end", loss = 0 / 0}
    l:close()
    local events, bad = log.read(path)
    assert.same({{event = "run", time = 0}, {event = "end"}}, events)
    assert.same({}, bad)
    assert.error_matches(function() l:write {event = "late"} end, "is closed")
    os.remove(path)
  end)

  it("continues after a line that was cut off, which the reader names", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "wb"))
    file:write '{"event":"run"}\n{"event":"st'
    file:close()
    local l = log.open(path)
    l:write {event = "run"}
    l:close()
    local events, bad = log.read(path)
    assert.equal(2, #events)
    assert.equal(2, bad[1].line)
    assert.matches(":2: json: offset 12", bad[1].message)
    os.remove(path)
  end)

  it("names the path where it cannot write, as on a full disk", function()
    assert.error_matches(function() log.open "/nowhere/x.jsonl" end, "cannot write /nowhere/x.jsonl: No such file")
    assert.error_matches(function() log.open "" end, "expected a file name")
    local full = io.open("/dev/full", "a")
    if full then
      full:close()
      assert.error_matches(function() log.open("/dev/full"):write {a = 1} end, "writing /dev/full: .*No space left")
    end
  end)

  it("without a path writes nothing", function()
    local l = log.open(nil)
    l:write {event = "step"}
    assert.is_nil(l.file)
    assert.error_matches(function() l:write "step" end, "write got a string") -- the argument is checked all the same
    assert.error_matches(function() l:write {a = print} end, "log: ")
    l:close()
  end)
end)

describe("numbers for people", function()
  it("are short", function()
    assert.equal("0 B", log.bytes(0))
    assert.equal("999 B", log.bytes(999))
    assert.equal("1.00 kB", log.bytes(999.96))
    assert.equal("1.23 MB", log.bytes(1234567))
    assert.equal("44.7 MB", log.bytes(44.7e6))
    assert.equal("11.2 M", log.count(11173962))
    assert.equal("12 ms", log.duration(0.012))
    assert.equal("59.9 s", log.duration(59.9))
    assert.equal("1m00s", log.duration(59.96))
    assert.equal("3m02s", log.duration(182))
    assert.equal("1h05m", log.duration(3900))
    assert.equal("?", log.duration(0 / 0))
    assert.equal("15.8x", log.ratio(15.84))
    assert.equal("256x", log.ratio(256))
  end)

  it("stand in aligned tables", function()
    assert.equal("name   bytes\n" .. "------------\n" .. "svd       12\n" .. "entry   3.50",
      log.table {{"name", "bytes"}, {"svd", 12}, {"entry", "3.50"}})
    assert.equal("  name      svd\n  accuracy  0.5", log.pairs {{"name", "svd"}, {"accuracy", "0.5"}})
  end)

  it("are percentages that add up to 100, whatever the parts", function()
    assert.equal("forward 57% backward 40% other 3%", log.shares({{"forward", 5.7}, {"backward", 4}, {"x", 0.01}}, 10))
    assert.equal("forward 33% backward 67%", log.shares({{"forward", 10}, {"backward", 20}}, 10)) -- more than the whole
    assert.equal("other 100%", log.shares({}, 1))
    assert.equal("", log.shares({{"forward", 0}}, 0))
    local list = {}
    for round = 1, 2000 do
      local parts, sum = {}, 0
      for i = 1, 1 + round % 8 do parts[i] = {"p", math.random() ^ 4} end
      for share in log.shares(parts, 8 * math.random()):gmatch "(%d+)%%" do sum = sum + tonumber(share) end
      if sum ~= 100 then list[#list + 1] = round end
    end
    assert.same({}, list)
  end)
end)

describe("the progress line", function()
  local function run(width, times)
    local said, now = {}, 0
    local p = log.progress {total = 100, label = "epoch 1", every = 50, seconds = 10, width = width,
      clock = function() return now end, stream = {
        write = function(self, text) said[#said + 1] = text end,
      }}
    for i, t in ipairs(times) do
      now = t
      p:update(i, function() return "loss " .. i end)
    end
    return said, p
  end

  it("off a terminal is a line every N steps, every 10 seconds, and the last", function()
    local times = {}
    for i = 1, 100 do times[i] = i * 0.3 end
    times[20] = 12
    local said = run(0, times)
    assert.equal("epoch 1  20/100  ETA 48.0 s  loss 20\n", said[1])
    assert.matches("^epoch 1  50/100", said[2])
    assert.matches("^epoch 1  100/100  30.0 s  loss 100\n$", said[#said])
    assert.is_nil(table.concat(said):find "\r")
  end)

  it("on a terminal is redrawn at most four times a second and fits the width", function()
    local times = {}
    for i = 1, 99 do times[i] = i * 0.01 end
    local said = run(30, times)
    assert.equal(3, #said)
    for _, text in ipairs(said) do
      assert.equal("\r", text:sub(1, 1))
      assert.is_true(#text <= 30)
    end
  end)

  it("drops the last parts of a list that do not fit on a terminal, and shows all elsewhere", function()
    for _, case in ipairs {{28, "loss 1  acc 2"}, {24, "loss 1"}, {0, "loss 1  acc 2  end"}} do
      local said = {}
      local p = log.progress {total = 9, every = 1, width = case[1], clock = function() return 0 end, stream = {
        write = function(_, text) said[#said + 1] = text end}}
      p:update(9, function(live)
        assert.equal(case[1] > 0, live)
        return {"loss 1", "acc 2", "end"}
      end)
      assert.equal("9/9  0 ms  " .. case[2], (table.concat(said):gsub("[\r\n]", "")))
    end
  end)

  it("makes room for whole lines", function()
    local said, p = run(80, {1})
    p:line "warning"
    assert.matches("^\r +\r$", said[2])
    assert.equal("warning\n", said[3])
  end)
end)
