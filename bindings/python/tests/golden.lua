-- golden.lua FOLDER - writes gradients, and the messages that every compressor makes of them, for test_golden.py: lines
-- of compressor, form, step, rank, tensor and the message in hexadecimal.
local atomo = require "atomo"
local folder = arg[1]

atomo.manual_seed(7)
local shapes = {{12, 3, 3, 8}, {40, 24}, {33}}
local grads = {}
for i, shape in ipairs(shapes) do
  grads[i] = atomo.randn(unpack(shape)) * i
  grads[i]:save_npy(("%s/g%d.npy"):format(folder, i))
end
local out = assert(io.open(folder .. "/messages", "w"))
local function hex(text) return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
local function write(spec, form, step, rank, tensor, bytes)
  out:write(("%s\t%s\t%d\t%d\t%d\t%s\n"):format(spec, form, step, rank, tensor, hex(bytes)))
end

local specs = {"svd:ratio=8,bits=4;^b=none", "auto:ratio=8,ef=true", "entry:bytes=900", "taps:atoms=50"}
for _, c in ipairs(atomo.compressors()) do specs[#specs + 1] = c.name end
for _, spec in ipairs(specs) do
  local one = atomo.compressor(spec, {seed = 11})
  for step = 3, 4 do
    write(spec, "one", step, 2, 5, one:encode(grads[1], {step = step, rank = 2, tensor = 5}):bytes())
  end
  local all = atomo.compressor(spec, {seed = 2 ^ 40 + 1, way = "down"})
  for i, m in ipairs(all:encode_all(grads, {step = 1, rank = 1})) do write(spec, "all", 1, 1, i, m:bytes()) end
  local streamed = atomo.compressor(spec, {seed = 0})
  streamed:prepare(shapes, {"a", "b", "c"}, {step_bytes = 8000, dense_bytes = 120})
  local buffer = atomo.zeros({streamed:wire_max()}, "u8")
  for step = 0, 2 do
    streamed:begin_step(step, 1)
    for i, g in ipairs(grads) do
      local n = streamed:push(i, g, buffer, 0)
      write(spec, "streamed", step, 1, i, require("ffi").string(buffer.h.data, n))
    end
    streamed:end_step()
  end
  for name, t in pairs(streamed:state_dict()) do
    if name:match "^learnt" and t:numel() > 0 then
      write(spec, name, 0, 0, 0, require("ffi").string(t.h.data, t:numel()))
    end
  end
end
out:close()
