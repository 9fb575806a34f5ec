-- A wait for a rank whose script has ended: an error within two seconds, at the call that waits, whatever it waits in
-- and however the other one ended. And waits for messages that a rank sent before its end, for a receive that it had
-- begun, or for a slow rank: no error. left_alone_spec.lua has collectives of all ranks, which compare fingerprints.
-- test: slow
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending, true)

local LIMIT = 5 -- seconds on an idle machine, with the start of the job

local head = [[local atomo = require "atomo"
local ffi, C, world = require "ffi", require("atomo.ffi").C, atomo.mpi.world
ffi.cdef "int usleep(unsigned int);"
local function sleep(tenths) for _ = 1, tenths do ffi.C.usleep(100000) end end
local function unchecked(comm) C.atomo_comm_set_checked(comm.h, 0) return comm end
local function is(rank) return world.rank == rank end
]]
local FIRST = 7 -- the line after head

--- Runs the script on `ranks` ranks; returns output, exit code, seconds and the file's name.
local function run(ranks, script, env)
  local path, remove = spawn.file(head .. script)
  local out, code, seconds = spawn.ranks(ranks, path, {timeout = 40, env = env})
  remove()
  return out, code, seconds, path:match "[^/]+$"
end

--- Asserts that the job ends with an error of one rank, at the script's line `line`, with these texts.
local function ends(ranks, script, line, ...)
  local out, code, seconds, file = run(ranks, script)
  assert.equal(1, code, out)
  for _, text in ipairs {("%s:%d: "):format(file, line), "which has ended its script", ...} do
    assert(out:find(text, 1, true), ("expected %q in:\n%s"):format(text, out))
  end
  local _, frames = out:gsub("stack traceback", "")
  assert.equal(1, frames, out)
  assert(spawn.in_time(seconds, LIMIT), ("took %.1f s:\n%s"):format(seconds, out))
end

describe("a wait for a message of a rank that has ended", function()
  for _, row in ipairs {
    {"recv", "if is(0) then world:recv(atomo.ones(3), 1, 3) end", FIRST,
      "recv: waits for a message of tag 3 (12 bytes) from rank 1, which", "expected a send on that rank"},
    {"irecv", "if is(1) then return end\nlocal r = world:irecv(atomo.ones(3), 1, 3)\nr:wait()", FIRST + 2,
      "irecv: waits for a message of tag 3"},
    {"another tag", "if is(0) then world:recv(atomo.ones(3), 1, 3) else world:isend(atomo.ones(3), 0, 4) end", FIRST,
      "from rank 1, which has ended its script (it sent one of tag 4)"},
    {"a large message of another tag", "if is(0) then world:recv(atomo.ones(3), 1, 3) else\n" ..
      "world:isend(atomo.ones(3e6), 0, 4) end", FIRST, "(it sent one of tag 4)"},
    {"one message of several", "if is(1) then world:send(atomo.ones(3), 0, 1) return end\n" ..
      "local a, b = world:irecv(atomo.ones(3), 1, 1), world:irecv(atomo.ones(3), 1, 2)\na:wait()\nb:wait()", FIRST + 3,
      "of tag 2"},
    {"the second message of one tag", "if is(1) then world:send(atomo.ones(3), 0, 1) return end\n" ..
      "world:recv(atomo.ones(3), 1, 1)\nworld:recv(atomo.ones(3), 1, 1)", FIRST + 2, "of tag 1"},
    {"send", "if is(0) then world:send(atomo.ones(3e6), 1, 3) end", FIRST,
      "send: waits with a message of tag 3 (12000000 bytes) for rank 1, which", "expected a receive on that rank"},
    {"isend", "if is(0) then local r = world:isend(atomo.ones(3e6), 1, 3) r:wait() end", FIRST, "isend: waits with"},
    {"send, to a receive of another tag", "if is(0) then world:send(atomo.ones(3e6), 1, 3) else\n" ..
      "_G.kept = world:irecv(atomo.ones(3e6), 0, 4) os.exit(0) end", FIRST, "send: waits with a message of tag 3"},
    {"by os.exit", "if is(1) then os.exit(0) end\nworld:recv(atomo.ones(3), 1)", FIRST + 1, "recv: waits for"},
    {"which ended long before", "if is(1) then return end\nsleep(20)\nworld:recv(atomo.ones(3), 1)", FIRST + 2,
      "recv: waits for"},
    {"which ends long after", "if is(1) then sleep(20) return end\nworld:recv(atomo.ones(3), 1)", FIRST + 1,
      "recv: waits for"},
    {"of a part", "local part = world:split(is(0) and 1 or 0)\nif is(2) then part:recv(atomo.ones(3), 0, 5) end",
      FIRST + 1, "from rank 1 (0 of this communicator), which"},
    {"without heads", "unchecked(world)\nif is(0) then world:recv(atomo.ones(3), 1, 3) end", FIRST + 1,
      "recv: waits for a message of tag 3"},
    {"large, without heads", "unchecked(world)\nif is(0) then world:recv(atomo.ones(3e6), 1, 3) end", FIRST + 1,
      "recv: waits for a message of tag 3 (12000000 bytes)"},
  } do
    local of_a_part = row[1] == "of a part"
    spec("is an error: " .. row[1], function() ends(of_a_part and 3 or 2, row[2], unpack(row, 3)) end)
  end
end)

describe("a wait in a collective for a rank that has ended", function()
  for name, wait in pairs {
    barrier = "part:barrier()", allreduce = "part:allreduce(atomo.ones(3))", bcast = "part:bcast(atomo.ones(3), 1)",
    allgather = "part:allgather(atomo.ones(3))", split = "part:split(0)", ibarrier = "part:ibarrier():wait()",
    iallreduce = "part:iallreduce(atomo.ones(9)):wait()", allgatherv = "part:allgatherv('abc')",
  } do
    spec("is an error in a part: " .. name, function()
      ends(3, "local part = world:split(is(1) and 1 or 0)\nif is(0) then " .. wait .. " end", FIRST + 1,
        name .. ": waits for rank 2 (1 of this communicator), which", "expected the same operations in the same order")
    end)
  end

  for _, row in ipairs {
    {"that does not compare fingerprints", "unchecked(world)\nif is(0) then world:allreduce(atomo.ones(3)) end", 1},
    {"after others that it took part in", "local part = world:split(0)\npart:barrier()\n" ..
      "part:iallreduce(atomo.ones(2)):wait()\nif not is(1) then part:barrier() end", 3},
    {"while a third rank is late", "if is(2) then sleep(300) end\nif not is(1) then world:barrier() end", 1},
    {"of a large buffer",
      "local part = unchecked(world:split(0))\nif is(0) then part:allreduce(atomo.ones(3e6)) end", 1},
  } do
    spec("is an error " .. row[1], function()
      ends(row[1]:find "third" and 3 or 2, row[2], FIRST + row[3], ": waits for rank 1")
    end)
  end

  spec("is one error of many ranks", function()
    ends(5, "local part = world:split(0)\nif not is(3) then part:barrier() end", FIRST + 1, "barrier: waits for rank 3")
  end)

  spec("is an error of the exchange", function()
    ends(3, [[local part = world:split(is(1) and 1 or 0)
local ex = atomo.exchange {comm = part}
for step = 1, 2 do
  if is(2) and step == 2 then return end
  ex:push(1, atomo.ones(30, 30))
  ex:finish()
end]], FIRST + 5, "waits for rank 2 (1 of this communicator)")
  end)
end)

describe("there is no error", function()
  -- {what, script, output, environment}; in each, a rank ends while another one waits or before it does
  for _, row in ipairs {
    {"if the message was sent before the end, and is received later", "if is(1) then world:send(atomo.ones(3), 0) " ..
      "return end\nsleep(20)\nprint(world:recv(atomo.zeros(3), 1):sum():item())", "3\n"},
    {"if it is sent just before the end, while the receiver waits", "if is(1) then sleep(12) " ..
      "world:isend(atomo.ones(3), 0) return end\nprint(world:recv(atomo.zeros(3), 1):sum():item())", "3\n"},
    {"if a large one is sent just before the end, while the receiver waits", "if is(1) then sleep(12) " ..
      "world:isend(atomo.ones(8e6), 0) return end\nprint(world:recv(atomo.zeros(8e6), 1):sum():item())", "8000000\n"},
    {"if a large one is received long after the end", "if is(1) then world:isend(atomo.ones(8e6), 0) return end\n" ..
      "sleep(20)\nprint(world:recv(atomo.zeros(8e6), 1):sum():item())", "8000000\n"},
    {"if it is received in pieces", "if is(1) then world:isend(atomo.ones(1e6), 0) return end\n" ..
      "sleep(10)\nprint(world:recv(atomo.zeros(1e6), 1):sum():item())", "1000000\n", "ATOMO_MPI_CHUNK=4096"},
    {"if it has no head", "unchecked(world)\nif is(1) then sleep(12) world:isend(atomo.ones(8e6), 0, 1) " ..
      "world:isend(atomo.ones(3), 0, 2) return end\nlocal a = world:recv(atomo.zeros(3), 1, 2)\n" ..
      "print(a:sum():item(), world:recv(atomo.zeros(8e6), 1, 1):sum():item())", "3\t8000000\n"},
    {"if messages are received in another order", "if is(1) then for k = 1, 40 do " ..
      "world:isend(atomo.full({3e4}, k), 0, k) end return end\nlocal sum = 0\n" ..
      "for k = 40, 1, -1 do\nif k == 20 then sleep(10) end\n" ..
      "sum = sum + world:recv(atomo.zeros(3e4), 1, k):get(1)\nend\nprint(sum)", "820\n"},
    {"if the receiver had ended its script, with the message on its way", "local t = atomo.ones(8e6)\n" ..
      "if is(1) then _G.kept = world:irecv(t, 0) world:barrier() sleep(2) os.exit(0) end\n" ..
      "local r = world:isend(t, 1)\nworld:barrier()\nsleep(10)\nr:wait()\nprint 'sent'", "sent\n"},
    {"if a small message is sent to it", "if is(1) then return end\nsleep(10)\nworld:send(atomo.ones(3), 1)\n" ..
      "print 'sent'", "sent\n"},
    {"if a rank is slow", "if is(1) then sleep(40) world:send(atomo.ones(3e6), 0) " ..
      "print(world:recv(atomo.zeros(3e6), 0):sum():item()) return end\nworld:recv(atomo.zeros(3e6), 1)\n" ..
      "world:send(atomo.ones(3e6), 1)", "3000000\n"},
    {"if waits follow others that asked", "local sum = 0\nfor k = 1, 3 do\nif is(1) then sleep(8) " ..
      "world:send(atomo.ones(3), 0) else sum = sum + world:recv(atomo.zeros(3), 1):sum():item() end\nend\n" ..
      "if is(1) then return end\nsleep(10)\nprint(sum)", "9\n"},
    {"if a request is only tested", "if is(1) then return end\nlocal r = world:irecv(atomo.ones(3), 1)\n" ..
      "for _ = 1, 20 do sleep(1) assert(not r:test()) end\nprint 'tested'", "tested\n"},
    {"if it has done its part of a reduction", "unchecked(world)\nif is(2) then sleep(70) end\n" ..
      "local t = world:reduce(atomo.ones(3))\nif is(0) then print(t:sum():item()) end", "9\n"},
  } do
    spec(row[1], function()
      local out, code = run(row[1]:find "reduction" and 3 or 2, row[2], row[4])
      assert.equal(row[3], out)
      assert.equal(0, code, out)
    end)
  end
end)
