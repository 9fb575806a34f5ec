--- Decoding methods of scripted compressors (stage 8): each adapter is opened, gets any number of messages, and is
-- closed.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local arguments = require "atomo.compress.arguments"
local message = require "atomo.compress.message"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

--- Adds scale times the decoded messages of tensor ids[j] (default j) to accs[j]. each(read) calls read(adapter, j,
--- step, data, size, rank) for every message; read decodes it and returns its length in bytes.
local function decode(self, ids, accs, scale, each)
  T.scope(function()
    for j = 1, #accs do
      for _, adapter in ipairs(self.adapters) do adapter:open(ids and ids[j] or j) end
    end
    each(function(adapter, j, step, data, size, rank)
      return adapter:add_message(ids and ids[j] or j, step, data, size, scale, accs[j], rank)
    end)
    for j = 1, #accs do
      for _, adapter in ipairs(self.adapters) do adapter:close(ids and ids[j] or j, accs[j]) end
      C.atomo_tensor_touch(accs[j].h)
    end
  end)
end

--- Decodes one message; returns acc plus scale times its gradient. Default acc: zeros.
local function decode_one(self, what, msg, scale, acc)
  local data, size = message.bytes_of(self.name, msg, what)
  local i = check(C.atomo_codec_tensor_of(data, size))
  local shape = self.shapes[i]
  if not shape then
    raise(("%s: %s: the message is for tensor %d, which is not planned"):format(self.name, what, i))
  end
  acc = acc or T.zeros(shape)
  if T.shape_text(acc) ~= T.shape_text(shape) then
    raise(("%s: %s: acc is %s, the message's tensor %d is %s"):format(self.name, what, T.shape_text(acc), i,
      T.shape_text(shape)))
  end
  local sum = T.zeros(shape) -- so that acc is unchanged if the message is refused
  local used = 0
  decode(self, {i}, {sum}, scale, function(read)
    for _, adapter in ipairs(self.adapters) do
      local more, all = read(adapter, 1, -1, data + used, size - used)
      used = used + more
      if all then break end
    end
    message.whole(self.name, what, used, size)
  end)
  acc:add_(sum)
  sum:free()
  return acc
end

function M:decode(msg) return decode_one(self, "decode", msg, 1) end

function M:decode_add(msg, scale, acc)
  return decode_one(self, "decode_add", msg, scale, arguments.accumulator(self.name, scale, acc))
end

--- Reads the messages of one rank's step, in the order of encode_step.
local function read_step(self, read, count, data, nbytes, step)
  local left, complete = nbytes, {}
  for _, adapter in ipairs(self.adapters) do
    for j = 1, count do
      if not complete[j] then
        local used, all = read(adapter, j, step, data, left)
        data, left, complete[j] = data + used, left - used, all
      end
    end
  end
  if left ~= 0 then raise(("%s: decode: %d bytes follow the last message"):format(self.name, left)) end
end

function M:decode_step(bytes, offset, nbytes, scale, accs, step)
  arguments.stretch(self.name, bytes, offset, nbytes)
  local data = ffi.cast("const uint8_t *", bytes.h.data) + offset
  decode(self, nil, accs, scale, function(read)
    read_step(self, read, #accs, data, nbytes, step or self.at_step or -1)
  end)
end

--- Adds scale times the next message of each source to acc; all must be for tensor i and this step, as push wrote them.
--- sources: {data=pointer, left=bytes, rank=sender (nil: any)}; data and left are advanced past the message.
function M:decode_tensor(i, step, sources, scale, acc)
  decode(self, {i}, {acc}, scale, function(read)
    for _, s in ipairs(sources) do
      for _, adapter in ipairs(self.adapters) do
        local used, all = read(adapter, 1, step, s.data, s.left, s.rank)
        s.data, s.left = s.data + used, s.left - used
        if all then break end
      end
    end
  end)
end

return M
