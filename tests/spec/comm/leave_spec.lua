-- Unfinished work: a script that ends, raises, drops, frees or closes while messages, gradients or batches are in
-- progress never crashes. Every job holds what it needs (runtime/exchange/engine.h), and the end of the program waits
-- for it.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local job = root .. "tests/support/leave_job.lua"

--- Asserts that the job on `ranks` ranks ends with this exit code and text.
local function ends(ranks, arguments, code, text)
  local out, got = spawn.ranks(ranks, job .. " " .. arguments, {timeout = 120})
  assert(got == code, ("%s on %d ranks: exit code %s, expected %d:\n%s"):format(arguments, ranks, got, code, out))
  if text == "" then assert.equal("", out) else assert(out:find(text, 1, true), out) end
end

local spec = spawn.specs(it, pending, true)

describe("a step left in the middle", function()
  for _, ranks in ipairs {1, 2} do
    spec(("by dropping, freeing, raising, in a coroutine, on %d ranks"):format(ranks), function()
      ends(ranks, "all", 0, "all left")
    end)
  end

  for _, o in ipairs {"none allreduce", "svd:ratio=4 allgather", "entry:ratio=8,ef=true ps compress",
    "powersgd:rank=2 allreduce"} do
    spec("by the end of the script: " .. o, function() ends(2, "end " .. o, 0, "") end)
    spec("by closing its communicator, twice: " .. o, function() ends(2, "close " .. o, 0, "") end)
  end

  spec("by os.exit and by an error", function()
    ends(2, "exit svd:ratio=4 sharded", 0, "")
    ends(2, "raise svd:ratio=4 allgather", 1, "left by an error")
    ends(1, "raise svd:ratio=4 allgather", 1, "left by an error")
  end)

  for _, o in ipairs {"none allreduce", "svd:ratio=4 allgather", "entry:ratio=8,ef=true sharded"} do
    spec("to a finalizer that ends it when Lua is closed: " .. o, function()
      ends(2, "finalizer " .. o, 0, "used at the end")
    end)
  end

  spec("by the end of input at the prompt", function()
    local path, remove = spawn.file(([[arg = {[0] = "x", "end", "svd:ratio=4", "allgather"}
dofile %q
]]):format(job))
    local command = spawn.quote(("%s -i < %s"):format(spawn.exe, path))
    local out, code = spawn.run("sh -c " .. command, {timeout = 60})
    remove()
    assert.equal("", out)
    assert.equal(0, code)
  end)
end)

describe("left unfinished", function()
  for _, ranks in ipairs {1, 2, 3} do
    spec(("messages and collectives, their tensors and communicator, on %d ranks"):format(ranks), function()
      ends(ranks, "requests", 0, "")
    end)
  end

  spec("a loader whose data set is freed", function() ends(1, "loader", 0, "") end)
end)
