--- A short training run that saves within an epoch, with a fault at the N-th change that rank RANK makes on the disk.
-- For checkpoint_faults_spec.lua.
--   atomo-lua tests/support/checkpoint_job.lua DIR RESUME FAULT RANK N [WHERE]
-- FAULT: none; kill, term, int, usr1 or usr2 (a signal before the change), cut (killed during it: half of the file is
-- written), full (the disk is full). RESUME: "" or the option of atomo.train. WHERE: "load", the fault is at the N-th
-- file of a checkpoint that is read; "start", at the N-th broadcast. Prints a digest of the parameters at the end.
local dir, from, fault, at_rank, at, where = arg[1], arg[2], arg[3], tonumber(arg[4]), tonumber(arg[5]), arg[6]
local ffi = require "ffi"
local atomo = require "atomo"
local disk = require "atomo.train.checkpoint.disk"
local world = atomo.mpi.world
ffi.cdef [[
int getpid(void); int kill(int, int);
typedef struct { unsigned long soft, hard; } atomo_test_limit;
int setrlimit(int, const atomo_test_limit *); void *signal(int, void *);
]]

local signals = {kill = 9, cut = 9, term = 15, int = 2, usr1 = 10, usr2 = 12}
local changes, armed = 0, false

--- Sets the limit of file sizes to 0, so that every write fails as on a full disk.
local function fill_disk()
  ffi.C.signal(25, ffi.cast("void *", 1)) -- SIGXFSZ is ignored: the write fails with EFBIG
  ffi.C.setrlimit(1, ffi.new("atomo_test_limit", {0, -1})) -- RLIMIT_FSIZE
end

--- Replaces t[name] by a function that counts calls while armed, and has the fault at the N-th.
local function watch(t, name, writes)
  local original = assert(t[name], name)
  t[name] = function(...)
    if armed and world.rank == at_rank then
      changes = changes + 1
      if changes == at then
        if fault == "cut" and writes then
          local file = io.open((...), "wb")
          file:write("half of it")
          file:close()
        end
        if fault == "full" then fill_disk() else ffi.C.kill(ffi.C.getpid(), signals[fault]) end
      end
    end
    return original(...)
  end
end

armed = where ~= nil
if where == "load" then
  watch(require "atomo.train.checkpoint.bag", "read")
elseif where == "start" then
  watch(getmetatable(world), "bcast")
else
  for _, name in ipairs {"make", "rename", "remove", "sync", "write_text", "write"} do
    watch(disk, name, name:find "^write" ~= nil)
  end
end

atomo.manual_seed(3)
local data = atomo.data.synthetic {train = 56, test = 8}
local nn = atomo.nn
local model = nn.Sequential {nn.Conv2d(3, 8, 3, {stride = 2}), nn.BatchNorm2d(8), nn.GlobalAvgPool(), nn.Dropout(0.2),
  nn.Linear(8, 10)}
local steps = 0
atomo.train {model = model, epochs = 2, eval_every = 0, save = dir, save_every = 3, keep = 1,
  resume = from ~= "" and from or nil,
  optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.05, momentum = 0.9},
  data = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, mean = data.mean,
    std = data.std},
  exchange = atomo.exchange {compress = "svd:ratio=4,bits=8,every=4,ef=true", min_size = 50},
  on_step = function(info)
    steps = info.step
    armed = not where and fault ~= "none" and steps == 6 -- the fault comes in the second checkpoint
  end}
local parts = {}
for _, entry in ipairs(model:named_parameters()) do parts[#parts + 1] = entry[2]:bytes() end
local text = table.concat(parts)
print(("END rank %d step %d %08x after %d changes"):format(world.rank, steps,
  require("atomo.ffi").C.atomo_crc32(text, #text), changes))
