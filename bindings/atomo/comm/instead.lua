--- What to write for names of mpi4py, torch.distributed and Horovod that communicators and requests do not have.
local M = {}

M.communicator = {
  abort = 'error "why", which ends all ranks', Abort = 'error "why", which ends all ranks',
  alltoall = "world:alltoallv(list)", all_to_all = "world:alltoallv(list)",
  average = "world:allreduce(t):div_(world.size)", mean = "world:allreduce(t):div_(world.size)",
  broadcast = "world:bcast(t, root)", broadcast_ = "world:bcast(t, root)",
  Dup = "world:split(0)", dup = "world:split(0)", Clone = "world:split(0)",
  Free = "comm:close()", free = "comm:close()",
  Get_rank = "world.rank", get_rank = "world.rank", Get_size = "world.size", get_size = "world.size",
  get_world_size = "world.size", local_world_size = "world.local_size",
  Get_processor_name = "world.hostname", get_name = "world.hostname", host = "world.hostname",
  Iprobe = "world:irecv(t, src, tag):test()", iprobe = "world:irecv(t, src, tag):test()",
  probe = "world:recv(t, src, tag)", Probe = "world:recv(t, src, tag)",
  is_initialized = "nothing: MPI starts when it is first used",
  master = "world.rank == 0", is_master = "world.rank == 0", root = "world.rank == 0",
  reduce_scatter = "world:allreduce(t), and t:narrow(...) of the own part",
  scatter = "world:alltoallv(list), or world:bcast(t, root) and t:select(1, world.rank + 1)",
  Scatter = "world:alltoallv(list), or world:bcast(t, root) and t:select(1, world.rank + 1)",
  Sendrecv = "local r = world:isend(t, dst) world:recv(u, src) r:wait()",
  sendrecv = "local r = world:isend(t, dst) world:recv(u, src) r:wait()",
  sum = 'world:allreduce(t, "sum")', max = 'world:allreduce(t, "max")', min = 'world:allreduce(t, "min")',
  Waitall = "a loop: for _, r in ipairs(requests) do r:wait() end",
  waitall = "a loop: for _, r in ipairs(requests) do r:wait() end",
  comm = "world itself: it is the communicator", world = "world itself: it is the communicator",
}

M.request = {
  is_completed = "r:test()", done = "r:test()", Waitall = "r:wait() of each",
  result = "r:wait(), which returns the tensor",
  cancel = "near: dropping the request", Cancel = "near: dropping the request",
}

return M
