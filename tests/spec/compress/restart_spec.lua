-- A compressor made anew with another one's state_dict continues as that one: the same messages, for all compressors,
-- those in Lua too, with error feedback and without. With the memory alone it continues as the other after restart.
local atomo = require "atomo"
local root = require "support.root"
dofile(root .. "scripts/atoms/head_tail.lua")
dofile(root .. "scripts/atoms/haar.lua")
require("support.svd_atoms")("restart_svd", {bits = 8})

local shapes = {{12, 20}, {6, 3, 3, 4}, {9, 40}}
local texts = {"head_tail:ratio=4", "head_tail:ratio=4,ef=true", "haar_lua:ratio=4", "restart_svd:ratio=3",
  "restart_svd:atoms=2,sampling=systematic", "svd:ratio=4,every=3",
  "svd:ratio=8,bits=0,every=2", "svd:ratio=4,bits=4,ef=true",
  "auto:ratio=8,every=2", "auto:ratio=8,keep=3", "powersgd:ef=true", "topk:ratio=4,ef=true", "entry:ratio=8,ef=true"}
for _, entry in ipairs(atomo.compressors()) do
  if not entry.make then texts[#texts + 1] = entry.name end
end

local function made(text)
  local c = atomo.compressor(text, {seed = 3})
  c:prepare(shapes, {"a", "b", "c"}, {step_bytes = 4 * 816, dense_bytes = 0})
  return c
end

--- The messages of steps first .. last, streamed.
local function messages(c, first, last)
  local out, parts = atomo.full({40000}, 0, "u8"), {}
  for step = first, last do
    c:begin_step(step, 0)
    for i = #shapes, 1, -1 do
      atomo.manual_seed(10 * step + i)
      local n = c:push(i, atomo.randn(shapes[i]):mul_(step % 3 + 0.5), out, 0)
      parts[#parts + 1] = out:narrow(1, 1, n):bytes()
    end
    c:end_step()
  end
  return table.concat(parts)
end

describe("messages equal those of one made anew with the state, after restart with the memory:", function()
  for _, text in ipairs(texts) do
    it(text, function()
      local c, anew, forgetful, memory = made(text), made(text), made(text), {}
      messages(c, 0, 5)
      local state = c:state_dict()
      anew:load_state_dict(state)
      for name, t in pairs(state) do
        if not name:find "learnt" then memory[name] = t end
      end
      forgetful:load_state_dict(memory)
      assert.is_true(messages(anew, 6, 9) == messages(c, 6, 9))
      c:load_state_dict(state)
      c:restart()
      assert.is_true(messages(forgetful, 6, 9) == messages(c, 6, 9))
    end)
  end
end)

describe("learnt state that no step could have left is refused, by name:", function()
  local function damaged(text, at, bytes)
    local c = made(text)
    messages(c, 0, 2)
    local state = c:state_dict()["learnt.2"]
    if at < 0 then at = state:numel() + at end
    for i, byte in ipairs(bytes) do state:data()[at + i - 1] = byte end
    local ok, message = pcall(c.load_state_dict, made(text), {["learnt.2"] = state})
    assert.is_false(ok)
    assert.truthy(message:find("learnt state of tensor b [6,3,3,4] holds impossible values", 1, true), message)
  end
  local nan = {0, 0, 0xC0, 0x7F}

  it("a price that is NaN", function() damaged("entry:ratio=8", 0, {0, 0, 0, 0, 0, 0, 0xF8, 0x7F}) end)
  it("an entry of a kept basis that is NaN", function()
    damaged("svd:ratio=4,every=3", -4, nan)
    damaged("svd:ratio=4,every=3", -144, nan)
  end)
  -- The bytes: six doubles of the plan, then the family's number in 4 bytes.
  it("a family's number that does not exist", function() damaged("auto:ratio=8", 48, {10}) end)
end)

describe("the state that gradients of zeros leave is one to continue from:", function()
  for _, text in ipairs(texts) do
    it(text, function()
      local c, anew, out = made(text), made(text), atomo.full({40000}, 0, "u8")
      for step = 0, 3 do
        c:begin_step(step, 0)
        for i = #shapes, 1, -1 do c:push(i, atomo.zeros(shapes[i]), out, 0) end
        c:end_step()
      end
      anew:load_state_dict(c:state_dict())
      assert.equal(messages(c, 4, 6), messages(anew, 4, 6))
    end)
  end
end)
