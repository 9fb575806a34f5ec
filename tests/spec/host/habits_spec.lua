-- Calls that users of PyTorch, Torch and mpi4py try by habit, one a row: each does what is expected, or ends the
-- program with an error in one line: what was called, the place, and what to write here.
-- test: slow
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)

local script = [[local atomo = require "atomo"
local nn, world = atomo.nn, atomo.mpi.world
local m, t, s = nn.Sequential {nn.Linear(2, 2)}, atomo.ones(2, 2), atomo.ones(1)
local opt = atomo.optim.sgd {params = m:parameters(), lr = 0.1}
local set = atomo.data.synthetic {train = 8, test = 8}.train
local loader = atomo.data.loader {set = set, batch = 2}
]]
local LINE = 7 -- of the call

describe("by habit:", function()
  -- {call, words of the error: what was called, what to write}
  for _, row in ipairs {
    {"m:half()", "'half'", 'write atomo.set_precision "bf16", or t:to("f16") of a tensor'},
    {"m:float()", "'float'", "write nothing: models are f32"},
    {"m:children()", "'children'", "write m:named_children()"},
    {"m:modules()", "'modules'", "write m:named_modules()"},
    {"m:cuda()", "module.cuda", "write nothing: modules are in main memory"},
    {"m:to('cuda')", "module.to", "write nothing: modules are in main memory"},
    {"m:cpu()", "'cpu'", "write nothing: all is in main memory"},
    {"m:append(nn.ReLU())", "'append'", "write m:add(layer)"},
    {"m:summary()", "'summary'", "write print(m)"},
    {"m:save('x')", "'save'", "write atomo.torch.save(path, m)"},
    {"m:zeroGradParameters()", "zeroGradParameters", "write m:zero_grad()"},
    {"for _, p in ipairs(m.parameters) do end", "'ipairs'", "it is a method: call it, as in x:parameters()"},
    {"print(#m.parameters)", "function value", "it is a method: call it, as in x:parameters()"},
    {"m.parameters()", "a module's method", "write m:method(...), with a colon"},
    {"m.training()", "'training'", "it is a boolean: write x.training, without parentheses"},
    {"print(nn.Linear(2, 2).weight.grad.data)", "'grad'", "gradients are there after loss:backward()"},
    {"m[1].weight.data:zero_()", "tensor.data is a method", "write t:data(...)"},
    {"t:cpu()", "tensor.cpu", "tensors are in main memory"},
    {"t:cuda()", "tensor.cuda", "tensors are in main memory"},
    {"t:to('cuda')", "unknown dtype 'cuda'", "all tensors are in main memory"},
    {"t:to('cpu')", "unknown dtype 'cpu'", "all tensors are in main memory"},
    {"t:item()", "item: tensor [2,2] has 4 elements", "expected 1"},
    {"t:numpy()", "tensor.numpy", "write t:totable(), t:data() or t:save_npy(path)"},
    {"print(t.shape[0])", "tensor.shape is a method", "t:size(1) is the size of the first dimension"},
    {"print(t.numel + 1)", "'numel'", "it is a method: call it, as in x:numel()"},
    {"if t.numel > 3 then end", "compare number with function", "it is a method: call it"},
    {"if t > 0 then end", "compare number with table", "t:lt(x) compares its elements, as do le, gt"},
    {"local loss = s loss.item()", "a tensor's method", "write t:method(...), with a colon"},
    {"local loss = s:item() loss:backward()", "'loss'", "loss is a number, as t:item() returns, not a tensor"},
    {"world:rank()", "'rank'", "it is a number: write x.rank, without parentheses"},
    {"world.size()", "'size'", "it is a number: write x.size, without parentheses"},
    {"world:hostname()", "'hostname'", "it is a string: write x.hostname, without parentheses"},
    {"atomo.mpi.world()", "'world'", "it is a table: write x.world, without parentheses"},
    {"world.Get_rank()", "communicator.Get_rank", "write world.rank"},
    {"world:Get_size()", "communicator.Get_size", "write world.size"},
    {"world:Allreduce(t)", "communicator.Allreduce", "did you mean 'allreduce'?"},
    {"world:all_reduce(t)", "communicator.all_reduce", "did you mean 'allreduce'?"},
    {"world:broadcast(t)", "communicator.broadcast", "write world:bcast(t, root)"},
    {"world:Sendrecv(t)", "communicator.Sendrecv", "write local r = world:isend(t, dst) world:recv(u, src) r:wait()"},
    {"world:scatter(t)", "communicator.scatter", "write world:alltoallv(list)"},
    {"world:Abort()", "communicator.Abort", 'write error "why", which ends all ranks'},
    {"world:iallreduce(t):is_completed()", "request.is_completed", "write r:test()"},
    {"atomo.mpi.Init()", "mpi.Init", "write nothing: MPI starts when it is first used"},
    {"print(atomo.mpi.COMM_WORLD)", "mpi.COMM_WORLD", "write atomo.mpi.world"},
    {"atomo.world:rank()", "atomo.world", "write atomo.mpi.world"},
    {"atomo.rank()", "atomo.rank", "write atomo.mpi.world.rank"},
    {"atomo.distributed.get_rank()", "atomo.distributed", "write atomo.mpi"},
    {"atomo.DistributedDataParallel(m)", "atomo.DistributedDataParallel", "write atomo.exchange"},
    {"opt:zero_grad(true)", "zero_grad: options are a boolean", "expected a table"},
    {"opt:zeroGrad()", "optimizer.zeroGrad", "write optimizer:zero_grad()"},
    {"opt:set_lr(0.1)", "optimizer.set_lr", "write optimizer.lr = 0.1"},
    {"opt:lr()", "'lr'", "it is a number: write x.lr, without parentheses"},
    {"opt.param_groups[1].lr = 1", "optimizer.param_groups", "write optimizer.groups"},
    {"torch.manual_seed(1)", "'torch'", 'write local torch = require "atomo" first'},
    {"MPI.COMM_WORLD:rank()", "'MPI'", "write local world = atomo.mpi.world first"},
    {"for x, y in loader do end", "a table value", "for batch in loader:epoch(0) do"},
    {"set:size()", "'size'", "set.n of a data set"},
  } do
    spec(row[1], function()
      local path, remove = spawn.file(script .. row[1] .. "\n")
      local out, code = spawn.host(path)
      remove()
      assert.equal(1, code)
      local first = out:match "[^\n]*"
      for _, word in ipairs {(":%d: "):format(LINE), unpack(row, 2)} do
        assert(first:find(word, 1, true), ("expected %q in:\n%s"):format(word, out))
      end
    end)
  end

  spec("what is here, too, and does the same", function()
    local path, remove = spawn.file(script .. [[
      opt:zero_grad {set_to_none = true}
      assert(#m:named_parameters() == 2 and #m:parameters() == 2)
      assert(s:item() == 1 and t:size(1) == 2 and t:numel() == 4 and t:dim() == 2)
      assert(m:train() == m and m:eval() == m and m:zero_grad() and m:requires_grad_(false))
      assert(world.rank == 0 and world.size == 1 and set.n == 8)
      atomo.manual_seed(1)
      print "all here"]])
    local out, code = spawn.host(path)
    remove()
    assert.equal("all here\n", out)
    assert.equal(0, code)
  end)
end)
