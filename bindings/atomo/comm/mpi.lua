--- MPI: communicators over contiguous f32, i32 and u8 tensors. `atomo.mpi.world` is the communicator of all ranks.
-- Ranks, roots and tags count from 0, as in MPI. Every rank of a communicator must call its collectives in the same
-- order. Blocking collectives check this before they begin, non-blocking ones when a rank waits for the request. MPI
-- starts at the first use.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local instead = require "atomo.comm.instead"
local unknown = require("atomo.core.strict").unknown
local strict_fields = require "atomo.core.fields"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

---@class atomo.Comm
---@field rank integer       rank of this process, from 0
---@field size integer       number of ranks
---@field local_rank integer rank among those on this host, from 0
---@field local_size integer number of ranks on this host
---@field hostname string
local Comm = strict_fields({}, "communicator", "rank size local_rank local_size hostname", nil, instead.communicator)
local mpi = {Comm = Comm}

local reductions = {
  sum = C.ATOMO_MPI_SUM, max = C.ATOMO_MPI_MAX, min = C.ATOMO_MPI_MIN, prod = C.ATOMO_MPI_PROD,
}

-- ---- arguments ---------------------------------------------------------------------------------------------------

-- A closed communicator raises on any use except reading its plain fields.
function Comm.__index(_, key)
  if key == "h" then raise "mpi: the communicator is closed" end
  return Comm[key]
end

function Comm.__tostring(self)
  return ("communicator(rank %d of %d on %s%s)"):format(self.rank, self.size, self.hostname,
    rawget(self, "h") and "" or ", closed")
end

local function tensor(t, what) return T.expect(t, what).h end

local function integer(v, default, what)
  if v == nil and default then return default end
  return number.expect_whole(v, what, -2 ^ 31, 2 ^ 31 - 1)
end

local function reduction(name, what)
  local op = reductions[name or "sum"]
  if not op then
    raise(("%s: unknown reduction '%s', expected sum, max, min or prod"):format(what, brief(name)))
  end
  return op
end

--- Returns the handle of a tensor that will be overwritten by received values. Raises for an operator's result while
--- recording: backward would not know of the change.
local function target(t, what)
  T.expect(t, what)
  if t.node and T.recording() then
    raise(what .. " is the result of an operator, and its gradient would miss the change; use its :detach()")
  end
  return t.h
end

local slot = ffi.typeof "atomo_comm *[1]"

local function wrap_comm(h)
  if h == nil then return nil end
  return setmetatable({
    h = h, rank = C.atomo_comm_rank(h), size = C.atomo_comm_size(h), local_rank = C.atomo_comm_local_rank(h),
    local_size = C.atomo_comm_local_size(h), hostname = ffi.string(C.atomo_mpi_hostname()),
  }, Comm)
end

-- ---- collectives -------------------------------------------------------------------------------------------------

--- Waits until every rank has called it. [collective]
---@usage world:barrier()
function Comm:barrier() check(C.atomo_comm_barrier(self.h)) end

--- Broadcast: copies rank root's values into t on every rank; returns t.
---@param t atomo.Tensor
---@param root integer? default 0
---@return atomo.Tensor t
---@usage world:bcast(t, 0):get(1) --> 1
function Comm:bcast(t, root)
  check(C.atomo_comm_bcast(self.h, target(t, "bcast: tensor"), integer(root, 0, "bcast: root")))
  return t
end

--- Replaces t by the reduction over all ranks, on every rank; returns t.
---@param t atomo.Tensor
---@param op "sum"|"max"|"min"|"prod"|nil default sum
---@return atomo.Tensor t
---@usage world:allreduce(t, "max"):get(1) --> 1
function Comm:allreduce(t, op)
  check(C.atomo_comm_allreduce(self.h, target(t, "allreduce: tensor"), reduction(op, "allreduce")))
  return t
end

--- Like allreduce, but only rank root's t changes; returns t.
---@param t atomo.Tensor
---@param op "sum"|"max"|"min"|"prod"|nil default sum
---@param root integer? default 0
---@return atomo.Tensor t
---@usage world:reduce(t):get(1) --> 1
function Comm:reduce(t, op, root)
  check(C.atomo_comm_reduce(self.h, target(t, "reduce: tensor"), reduction(op, "reduce"),
    integer(root, 0, "reduce: root")))
  return t
end

--- Returns on rank root a tensor [size, ...] whose element r is rank r's t; nil on other ranks.
---@param t atomo.Tensor
---@param root integer? default 0
---@return atomo.Tensor?
---@usage world:gather(t):size(1) --> 1
function Comm:gather(t, root)
  local out = T.out()
  check(C.atomo_comm_gather(self.h, tensor(t, "gather: tensor"), integer(root, 0, "gather: root"), out))
  if out[0] ~= nil then return T.wrap(out[0]) end
end

--- Returns a tensor [size, ...]: element r (from 0) is rank r's t. t has the same shape on all ranks.
---@param t atomo.Tensor
---@return atomo.Tensor
---@usage world:allgather(t):size(1) --> 1
function Comm:allgather(t)
  local out = T.out()
  check(C.atomo_comm_allgather(self.h, tensor(t, "allgather: tensor"), out))
  return T.wrap(out[0])
end

local function bytes_of(text)
  local t = T.empty({#text}, "u8")
  ffi.copy(t.h.data, text, #text)
  return t
end

local function text_of(t) return ffi.string(t.h.data, t.h.numel) end

local function wrap_list(handles, n)
  local list = {}
  for r = 1, n do list[r] = T.wrap(handles[r - 1]) end
  return list
end

--- Returns a list of the 1-D tensors (or strings) of all ranks: list[r + 1] is rank r's. Lengths may differ and be 0.
---@param t atomo.Tensor|string
---@return table
---@usage world:allgatherv("abc")[1] --> abc
function Comm:allgatherv(t)
  local text = type(t) == "string"
  if text then t = bytes_of(t) end
  local handles = ffi.new("atomo_tensor *[?]", self.size)
  check(C.atomo_comm_allgatherv(self.h, tensor(t, "allgatherv: tensor"), handles))
  local list = wrap_list(handles, self.size)
  if not text then return list end
  for r = 1, self.size do list[r] = text_of(list[r]) end
  return list
end

--- Sends list[r + 1] to rank r; returns a list of 1-D tensors, element r + 1 received from rank r. All have one dtype.
---@param list atomo.Tensor[]
---@return atomo.Tensor[]
---@usage #world:alltoallv {t} --> 1
function Comm:alltoallv(list)
  if type(list) ~= "table" or #list ~= self.size then
    raise(("alltoallv: expected a list of %d tensors, one per rank, got %s"):format(self.size,
      type(list) == "table" and #list or type(list)))
  end
  local send = ffi.new("const atomo_tensor *[?]", self.size)
  for r = 1, self.size do send[r - 1] = tensor(list[r], ("alltoallv: element %d"):format(r)) end
  local recv = ffi.new("atomo_tensor *[?]", self.size)
  check(C.atomo_comm_alltoallv(self.h, send, recv))
  return wrap_list(recv, self.size)
end

--- Raises on every rank unless value is the same on all; the error names two ranks and their values.
---@param name string name of the value in the error: "learning rate"
---@param value number|string
function Comm:check(name, value)
  if type(value) == "number" then
    value = ("%.17g"):format(value)
  elseif type(value) ~= "string" then
    raise(("check: %s is a %s, expected a number or a string"):format(brief(name), type(value)))
  end
  check(C.atomo_comm_check(self.h, tostring(name), value))
end

--- Labels the next operations ("step 12, conv1"). The label is compared over the ranks and shown in errors.
function Comm:tag(text) C.atomo_comm_set_tag(self.h, tostring(text)) end

--- Bytes sent and received so far (the convention is at atomo_comm_bytes in atomo.h).
---@return number out
---@return number in
function Comm:bytes()
  local out = ffi.new "double[2]"
  check(C.atomo_comm_bytes(self.h, out))
  return f.number(out, 0), f.number(out, 1)
end

-- ---- messages and requests ---------------------------------------------------------------------------------------

---@class atomo.Request
local Request = strict_fields({}, "request", "tensor", "tensor", instead.request)
mpi.Request = Request
Request.__index = Request

local request_slot = ffi.typeof "atomo_request *[1]"

-- The finalizer never calls MPI: C keeps an unfinished request and its tensor's memory until MPI has completed it.
local function wrap_request(s, t)
  return setmetatable({h = ffi.gc(s[0], C.atomo_request_free), tensor = t}, Request)
end

--- Blocks until the operation is complete; returns its tensor.
---@return atomo.Tensor?
---@usage world:iallreduce(t):wait():get(1) --> 1
function Request:wait()
  check(C.atomo_request_wait(self.h))
  return self.tensor
end

--- Is the operation complete? Also lets MPI make progress.
---@return boolean
---@usage type(world:ibarrier():test()) --> boolean
function Request:test() return check(C.atomo_request_test(self.h)) == 1 end

--- Sends t to rank dst; blocks until t may be changed.
---@param t atomo.Tensor
---@param dst integer
---@param tag integer? default 0
---@usage local r = world:irecv(atomo.zeros(2), 0) world:send(t, 0) r:wait()
function Comm:send(t, dst, tag)
  check(C.atomo_comm_send(self.h, tensor(t, "send: tensor"), integer(dst, nil, "send: destination"),
    integer(tag, 0, "send: tag")))
end

--- Receives into t from rank src; blocks until it is complete and returns t. t must have the size of the tensor sent.
---@param t atomo.Tensor
---@param src integer
---@param tag integer? default 0
---@return atomo.Tensor t
---@usage local r = world:isend(t, 0) world:recv(atomo.zeros(2), 0) r:wait()
function Comm:recv(t, src, tag)
  check(C.atomo_comm_recv(self.h, target(t, "recv: tensor"), integer(src, nil, "recv: source"),
    integer(tag, 0, "recv: tag")))
  return t
end

--- Starts to send t. Until the request is complete, t must not be changed (for irecv: not used).
---@return atomo.Request
---@param t atomo.Tensor
---@param dst integer
---@param tag integer? default 0
---@usage local r = world:isend(t, 0) world:recv(atomo.zeros(2), 0) r:wait()
function Comm:isend(t, dst, tag)
  local s = request_slot()
  check(C.atomo_comm_isend(self.h, tensor(t, "isend: tensor"), integer(dst, nil, "isend: destination"),
    integer(tag, 0, "isend: tag"), s))
  return wrap_request(s, t)
end

--- Starts to receive into t from rank src. Until the request is complete, t must not be used.
---@return atomo.Request
---@param t atomo.Tensor
---@param src integer
---@param tag integer? default 0
---@usage local r = world:irecv(t, 0) world:send(atomo.ones(2), 0) r:wait()
function Comm:irecv(t, src, tag)
  local s = request_slot()
  check(C.atomo_comm_irecv(self.h, target(t, "irecv: tensor"), integer(src, nil, "irecv: source"),
    integer(tag, 0, "irecv: tag"), s))
  return wrap_request(s, t)
end

--- Starts a barrier: the request is complete once every rank has started one. [collective]
---@return atomo.Request
---@usage world:ibarrier():wait()
function Comm:ibarrier()
  local s = request_slot()
  check(C.atomo_comm_ibarrier(self.h, s))
  return wrap_request(s)
end

--- Starts an allreduce; t has the result once the request is complete. [collective]
---@return atomo.Request
---@param t atomo.Tensor
---@param op "sum"|"max"|"min"|"prod"|nil default sum
---@usage world:iallreduce(t):wait():get(1) --> 1
function Comm:iallreduce(t, op)
  local s = request_slot()
  check(C.atomo_comm_iallreduce(self.h, target(t, "iallreduce: tensor"), reduction(op, "iallreduce"), s))
  return wrap_request(s, t)
end

--- Starts a broadcast of rank root's t. [collective]
---@return atomo.Request
---@param t atomo.Tensor
---@param root integer? default 0
---@usage world:ibcast(t):wait():get(1) --> 1
function Comm:ibcast(t, root)
  local s = request_slot()
  check(C.atomo_comm_ibcast(self.h, target(t, "ibcast: tensor"), integer(root, 0, "ibcast: root"), s))
  return wrap_request(s, t)
end

-- ---- communicators -----------------------------------------------------------------------------------------------

--- Returns a communicator of the ranks that pass the same color, ordered by key (default: the rank). With color nil or
--- -1 the rank takes no part and gets nil. [collective]
---@param color integer?
---@param key integer?
---@return atomo.Comm?
---@usage world:split(0).size --> 1
function Comm:split(color, key)
  local s = slot()
  check(C.atomo_comm_split(self.h, integer(color, -1, "split: color"), integer(key, self.rank, "split: key"), s))
  return wrap_comm(s[0])
end

--- Returns a communicator of the ranks on this host. [collective]
---@return atomo.Comm
---@usage world:split_shared().size --> 1
function Comm:split_shared()
  local s = slot()
  check(C.atomo_comm_split_shared(self.h, s))
  return wrap_comm(s[0])
end

--- Closes the communicator. One that is never closed stays open until the program ends. [collective]
---@usage world:split(0):close()
function Comm:close()
  check(C.atomo_comm_close(self.h))
  self.h = nil
end

--- Did mpirun (or srun) start several ranks?
---@return boolean
---@usage atomo.mpi.launched() --> false
function mpi.launched() return C.atomo_mpi_launched() == 1 end

return setmetatable(mpi, {__index = function(self, name)
  if type(name) == "string" and name:find "^__" then return nil end
  if name ~= "world" then unknown("mpi", name, self, {world = true}) end
  local s = slot()
  check(C.atomo_comm_world(s))
  local world = wrap_comm(s[0])
  rawset(self, "world", world)
  return world
end})
