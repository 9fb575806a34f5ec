-- Outputs of a run besides its log: TensorBoard event files, read back here as their format is described (TFRecord
-- framing, protocol buffers), and comma-separated values.
-- test: slow
local atomo = require "atomo"
local bit = require "bit"
local crc32c = require "atomo.core.crc32c"
local csv = require "atomo.train.outputs.csv"
local disk = require "atomo.train.checkpoint.disk"
local fails = require "support.fails"
local read = require("support.shell").content
local ffi = require "ffi"
local log = require "atomo.core.log"
local spawn = require "support.spawn"
local tensorboard = require "atomo.train.outputs.tensorboard"
local with_file = require "support.with_file"

-- ---- a reader of event files --------------------------------------------------------------------------------------

--- CRC-32C bit by bit, reflected, from its definition.
local function crc_of(text)
  local crc = 0xffffffff
  for i = 1, #text do
    crc = bit.bxor(crc, text:byte(i))
    for _ = 1, 8 do
      local odd = bit.band(crc, 1) == 1
      crc = bit.rshift(crc, 1)
      if odd then crc = bit.bxor(crc, 0x82f63b78) end
    end
  end
  return bit.bnot(crc) % 2 ^ 32
end

local function little(text)
  local n = 0
  for i = #text, 1, -1 do n = n * 256 + text:byte(i) end
  return n
end

local function masked(text)
  local crc = crc_of(text)
  return (bit.bor(bit.rshift(crc, 15), bit.lshift(crc, 17)) + 0xa282ead8) % 2 ^ 32
end

--- Returns the data of a file's records; checks both checksums of each.
local function records(bytes)
  local list, at = {}, 1
  while at <= #bytes do
    local head = bytes:sub(at, at + 7)
    local n = little(head)
    assert.equal(masked(head), little(bytes:sub(at + 8, at + 11)))
    local data = bytes:sub(at + 12, at + 11 + n)
    assert.equal(n, #data)
    assert.equal(masked(data), little(bytes:sub(at + 12 + n, at + 15 + n)))
    list[#list + 1], at = data, at + 16 + n
  end
  return list
end

--- Returns the fields of a message: a list of {number, value}; value: a number, or bytes.
local function message(bytes)
  local list, at = {}, 1
  local function varint()
    local n, scale = 0, 1
    repeat
      local b = bytes:byte(at)
      n, scale, at = n + b % 128 * scale, scale * 128, at + 1
    until b < 128
    return n
  end
  while at <= #bytes do
    local key = varint()
    local number, kind = math.floor(key / 8), key % 8
    local value
    if kind == 0 then value = varint()
    else
      local n = kind == 1 and 8 or kind == 5 and 4 or kind == 2 and varint() or error("wire type " .. kind)
      value, at = bytes:sub(at, at + n - 1), at + n
      if kind == 1 then value = ffi.cast("const double *", ffi.new("char[8]", value))[0] end
    end
    list[#list + 1] = {number, value}
  end
  return list
end

--- Returns the events of a file: {wall_time=, step=, version=, values = {tag = number}}.
local function events(bytes)
  local list = {}
  for i, data in ipairs(records(bytes)) do
    local e = {step = 0, values = {}}
    for _, field in ipairs(message(data)) do
      local number, value = field[1], field[2]
      if number == 1 then e.wall_time = value elseif number == 2 then e.step = value
      elseif number == 3 then e.version = value
      elseif number == 5 then
        for _, each in ipairs(message(value)) do
          assert.equal(1, each[1])
          local parts = {}
          for _, part in ipairs(message(each[2])) do parts[part[1]] = part[2] end
          e.values[parts[1]] = ffi.cast("const float *", ffi.new("char[4]", parts[2]))[0]
        end
      else error("field " .. number) end
    end
    list[i] = e
  end
  return list
end

-- ---- specs --------------------------------------------------------------------------------------------------------

local folders = {}
local function new_folder()
  local path = os.tmpname()
  os.remove(path)
  folders[#folders + 1] = path
  return path
end

--- Trains 2 epochs of 3 steps with these outputs.
local function train(options)
  atomo.manual_seed(1)
  local data = atomo.data.synthetic {train = 12, test = 6}
  local model = atomo.nn.Sequential {atomo.nn.Flatten(), atomo.nn.Linear(3072, 10)}
  local function loader(set) return atomo.data.loader {set = set, batch = 4, mean = data.mean, std = data.std} end
  options.model, options.data = model, {train = loader(data.train), test = loader(data.test)}
  options.optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01}
  options.epochs, options.quiet = 2, true
  options.exchange = atomo.exchange {compress = "entry:ratio=4"}
  return atomo.train(options)
end

describe("outputs of a run", function()
  teardown(function()
    for _, path in ipairs(folders) do
      if disk.kind(path) then disk.remove_folder(path) end
    end
  end)

  it("carry CRC-32C of the standard's test vectors", function()
    assert.equal(0xE3069283, crc32c "123456789")
    assert.equal(0x8A9136AA, crc32c(("\0"):rep(32)))
    assert.equal(0x62A8AB43, crc32c(("\255"):rep(32)))
    assert.equal(0, crc32c "")
  end)

  it("are an event file with the figures of the log, and a table of the same", function()
    with_file("", ".jsonl", function(path)
      with_file("", ".csv", function(table_path)
        local dir, started = new_folder(), os.time()
        train {log = path, tensorboard = dir, csv = table_path}
        local names = disk.names(dir)
        assert.equal(1, #names)
        assert.matches("^events%.out%.tfevents%.%d+%.[%w_%-]+$", names[1])
        local found, logged = events(read(dir .. "/" .. names[1])), {}
        for _, e in ipairs((log.read(path))) do
          if e.event == "step" or e.event == "epoch" then logged[#logged + 1] = e end
        end
        assert.same({9, 8, "brain.Event:2"}, {#found, #logged, found[1].version})
        local float = ffi.typeof "float"
        for i, want in ipairs(logged) do
          local got = found[i + 1]
          assert.is_true(got.wall_time >= started and got.wall_time < started + 120)
          assert.equal(want.step or logged[i - 1].step, got.step)
          if want.event == "step" then
            assert.equal(tonumber(float(want.loss)), got.values["train/loss"])
            assert.equal(tonumber(float(want.ms.forward)), got.values["ms/forward"])
            assert.equal(tonumber(float(want.relative_variance)), got.values["variance/relative"])
          else
            assert.equal(tonumber(float(want.test_loss)), got.values["test/loss"])
            assert.equal(tonumber(float(want.accuracy)), got.values["epoch/accuracy"])
          end
        end
        local rows, header = {}, nil
        for line in read(table_path):gmatch "[^\n]*\n" do
          local cells = {}
          for cell in (line:sub(1, -2) .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
          if header then
            local row = {}
            for k, name in ipairs(header) do row[name] = cells[k] end
            rows[#rows + 1] = row
            assert.equal(#header, #cells)
          else
            header = cells
          end
        end
        assert.equal(8, #rows)
        for i, want in ipairs(logged) do
          assert.equal(want.event, rows[i].event)
          for _, key in ipairs {"loss", "accuracy", "test_loss", "test_accuracy", "bytes_out", "variance", "lr"} do
            if not (want.event == "epoch" and key == "bytes_out") then
              assert.equal(want[key], tonumber(rows[i][key]), key)
            end
          end
          assert.equal(want.ms and want.ms.step, tonumber(rows[i].ms_step))
        end
      end)
    end)
  end)

  it("of a second run are added: a file beside the first, rows below the first", function()
    local dir = new_folder()
    for i = 1, 3 do
      tensorboard.open(dir, "a.b/c"):close()
      assert.equal(i, #disk.names(dir))
    end
    with_file("", ".csv", function(path)
      for _ = 1, 2 do
        local out = csv.open(path)
        out:step({step = 1, loss = 0 / 0, ms = {}}, 2)
        out:close()
      end
      local file = io.open(path, "a")
      file:write "step,2" -- a run that was killed
      file:close()
      csv.open(path):close()
      local lines = {}
      for line in read(path):gmatch "[^\n]*\n" do lines[#lines + 1] = line end
      assert.equal(4, #lines)
      assert.matches("^event,step,", lines[1])
      assert.matches("^step,1,,2,%-?nan,", lines[3])
    end)
  end)

  it("are refused before the training where they cannot be written", function()
    with_file("a,b\n1,2\n", ".csv", function(path)
      fails({path, "begins with 'a,b'", "name a new file"}, train, {csv = path})
    end)
    fails({"/nowhere/x.csv"}, train, {csv = "/nowhere/x.csv"})
    fails({"tensorboard: cannot make the folder", "/nowhere/dir"}, train, {tensorboard = "/nowhere/dir"})
    fails("tensorboard is 3, expected a path", train, {tensorboard = 3})
  end)

  it("on a terminal are one line that fits", function()
    if not spawn.possible() or not spawn.have "script" then return pending "needs the program script (bsdutils)" end
    local root = require "support.root"
    local out, code = spawn.run(("script -qec 'stty cols 60; %s %sscripts/train_cifar.lua --model mlp %s' /dev/null")
      :format(spawn.exe, root, "--train-images 200 --batch 20 --epochs 1 --eval-every 0"), {env = "TERM=xterm"})
    assert.equal(0, code, out)
    local live = 0
    for line in out:gmatch "\r([^\r\n]+)" do
      if line:find "^%d+/10" then
        live = live + 1
        assert.is_true(#line:gsub(" +$", "") < 60, line)
        assert.matches("^%d+/10  .*epoch 1/1  loss %d", line)
      end
    end
    assert.is_true(live >= 1, out)
  end)
end)
