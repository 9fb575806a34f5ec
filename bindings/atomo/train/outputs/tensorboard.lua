--- TensorBoard event files: scalars of a run, which `tensorboard --logdir DIR` shows. A file is a list of records, u64
-- length, u32 masked CRC-32C of it, data, u32 masked CRC-32C of the data (all little-endian). The data are protocol
-- buffers, message Event of TensorFlow's event.proto and summary.proto:
--   Event {double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5}
--   Summary {repeated Value value = 1}    Value {string tag = 1; float simple_value = 2}
local f = require "atomo.ffi"
local crc32c = require "atomo.core.crc32c"
local disk = require "atomo.train.checkpoint.disk"
local files = require "atomo.core.files"
local ffi = f.ffi

local M = {}

-- ---- protocol buffers ----------------------------------------------------------------------------------------------

local VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5 -- wire types

--- Returns n >= 0, at most 2^53, as a varint.
local function varint(n)
  local bytes = {}
  while n >= 128 do
    bytes[#bytes + 1] = string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return table.concat(bytes) .. string.char(n)
end

local function field(number, wire_type, content) return varint(number * 8 + wire_type) .. content end

local function bytes_field(number, text) return field(number, BYTES, varint(#text) .. text) end

local function binary(kind, v) return ffi.string(ffi.new(kind .. "[1]", v), ffi.sizeof(kind)) end

local function event(wall_time, step, content)
  return field(1, FIXED64, binary("double", wall_time)) .. field(2, VARINT, varint(step)) .. content
end

-- ---- records -----------------------------------------------------------------------------------------------------

--- Returns the CRC-32C of text, masked as TFRecord files want it, as 4 bytes.
local function masked_crc(text)
  local crc = crc32c(text)
  local turned = math.floor(crc / 2 ^ 15) + crc % 2 ^ 15 * 2 ^ 17
  return binary("uint32_t", (turned + 0xa282ead8) % 2 ^ 32)
end

local function record(data)
  local length = binary("uint64_t", #data)
  return length .. masked_crc(length) .. data .. masked_crc(data)
end

-- ---- the file ----------------------------------------------------------------------------------------------------

---@class atomo.EventFile
local EventFile = {}
EventFile.__index = EventFile

--- Begins a file in a folder, which is made if its parent exists.
---@param dir string
---@param host string  name of this machine, a part of the file's name
---@return atomo.EventFile
function M.open(dir, host)
  disk.make(dir, "tensorboard")
  local start = os.time()
  local name, n = ("%s/events.out.tfevents.%d.%s"):format(dir, start, host:gsub("[^%w_%-]", "_")), 0
  while disk.kind(n == 0 and name or ("%s.%d"):format(name, n)) do n = n + 1 end
  local self = setmetatable({start = start, file = files.open("tensorboard", n == 0 and name or
    ("%s.%d"):format(name, n), true)}, EventFile)
  self.file:write(record(event(start, 0, bytes_field(3, "brain.Event:2"))))
  return self
end

--- Appends scalars of one step.
---@param step integer
---@param seconds number  since the start of the run
---@param values table<string, number>  tag -> value
function EventFile:scalars(step, seconds, values)
  local tags, parts = {}, {}
  for tag in pairs(values) do tags[#tags + 1] = tag end
  table.sort(tags)
  for i, tag in ipairs(tags) do
    parts[i] = bytes_field(1, bytes_field(1, tag) .. field(2, FIXED32, binary("float", values[tag])))
  end
  self.file:write(record(event(self.start + seconds, step, bytes_field(5, table.concat(parts)))))
end

--- Appends a step of a run. info: as on_step gets it.
function EventFile:step(info, seconds)
  local values = {["train/loss"] = info.loss, ["train/accuracy"] = info.accuracy, ["train/lr"] = info.lr,
    ["speed/images_per_s"] = info.images_per_s, ["bytes/out"] = info.bytes_out, ["bytes/in"] = info.bytes_in,
    ["variance/relative"] = info.relative_variance}
  if (info.bytes_out or 0) > 0 and info.dense_bytes then values["bytes/ratio"] = info.dense_bytes / info.bytes_out end
  for name, ms in pairs(info.ms) do values["ms/" .. name] = ms end
  self:scalars(info.step, seconds, values)
end

--- Appends the end of an epoch.
function EventFile:epoch(info, seconds)
  self:scalars(info.step, seconds, {["epoch/loss"] = info.loss, ["epoch/accuracy"] = info.accuracy,
    ["test/loss"] = info.test_loss, ["test/accuracy"] = info.test_accuracy})
end

function EventFile:close() self.file:close() end

return M
