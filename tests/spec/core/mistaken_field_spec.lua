-- Assignments and options that would do nothing are refused, with the right call: elements of a tensor as fields, names
-- that are nearly right, and an unknown option of every public constructor.
local atomo = require "atomo"
local nn = atomo.nn

local function refused(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, "not refused: " .. pattern)
  assert.truthy(tostring(message):find(pattern), ("'%s' is not in '%s'"):format(pattern, tostring(message)))
end

describe("a tensor's element as a field", function()
  local t, mask = atomo.zeros(2, 3), atomo.ones(2, 3)

  it("is refused on assignment", function()
    refused("t%[1%] = value.*t:set", function() t[1] = 5 end)
    refused("t%[0%.5%] = value", function() t[0.5] = 5 end)
    refused("t%[tensor%] = value.*mask", function() t[mask] = 5 end)
    refused("t%[table%] = value", function() t[{1, 2}] = 5 end)
    assert.equal(0, t:sum():item())
  end)

  it("is refused on reading", function()
    refused("t%[1%]:.*t:get", function() return t[1] end)
    refused("t%[tensor%]:", function() return t[mask] end)
  end)
end)

describe("a field that would do nothing is refused:", function()
  it("of a tensor", function()
    local w = atomo.param(atomo.zeros(2))
    refused("requires_gard.*did you mean 'requires_grad'", function() w.requires_gard = false end)
    refused("did you mean 'grad'", function() w.gard = atomo.zeros(2) end)
    refused("'shape' is a method", function() w.shape = {1, 2} end)
    refused("'data' is a method", function() w.data = atomo.zeros(2) end)
    w.label = "mine" -- the user's own
    assert.equal("mine", w.label)
    w.requires_grad = false
    assert.is_false(w.requires_grad)
  end)

  it("of a module", function()
    local m = nn.Linear(2, 3)
    for _, key in ipairs {"trainnig", "train", "Training"} do
      refused("module:train%(%)", function() m[key] = true end)
    end
    m.residual = true
    m.training = false
  end)

  it("of a layer: an option that it reads only when it is made", function()
    local layers = {
      {nn.Conv2d(2, 3, 3), "stride", "padding", "dilation", "groups"},
      {nn.Conv2d(2, 3, 3, {padding = 1, padding_mode = "reflect"}), "stride", "padding"},
      {nn.ConvTranspose2d(2, 3, 3), "stride", "padding", "dilation", "groups"},
      {nn.MaxPool2d(2), "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"},
      {nn.AvgPool2d(2), "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"},
      {nn.CrossEntropyLoss(), "label_smoothing", "ignore_index", "reduction"},
      {nn.NLLLoss(), "ignore_index", "reduction"},
      {nn.MSELoss(), "reduction"},
      {nn.BCEWithLogitsLoss(), "weight", "pos_weight", "reduction"},
    }
    for _, case in ipairs(layers) do
      for i = 2, #case do
        refused(("%s: %s is set when the layer is made"):format(case[1].class_name, case[i]), function()
          case[1][case[i]] = 2
        end)
      end
    end
    local norm, drop = nn.BatchNorm1d(1), nn.Dropout(0.5) -- options that are read in each call may be set
    norm.momentum, drop.p = 1, 0
    norm(atomo.tensor {{1}, {3}})
    assert.equal(2, norm.running_mean:item())
    assert.same({1, 1, 1}, drop(atomo.ones(3)):totable())
  end)

  it("of an optimizer and of its groups", function()
    local opt = atomo.optim.sgd{params = {atomo.param(atomo.zeros(2))}, lr = 0.1}
    refused("did you mean 'lr'", function() opt.Lr = 1 end)
    refused("groups%[i%]", function() opt.momentum = 1 end)
    refused("a method", function() opt.zero_grad = 1 end)
    refused("unknown option", function() opt.groups[1].Lr = 1 end)
    opt.lr = 0.2
  end)
end)

describe("an unknown option is refused by", function()
  local function params() return {atomo.param(atomo.zeros(2))} end
  local made = {
    sgd = function(o) o.params, o.lr = params(), 1 return atomo.optim.sgd(o) end,
    adam = function(o) o.params, o.lr = params(), 1 return atomo.optim.adam(o) end,
    adamw = function(o) o.params, o.lr = params(), 1 return atomo.optim.adamw(o) end,
    lars = function(o) o.params, o.lr = params(), 1 return atomo.optim.lars(o) end,
    lamb = function(o) o.params, o.lr = params(), 1 return atomo.optim.lamb(o) end,
    Linear = function(o) return nn.Linear(2, 3, o) end,
    Conv2d = function(o) return nn.Conv2d(2, 3, 3, o) end,
    BatchNorm2d = function(o) return nn.BatchNorm2d(2, o) end,
    LayerNorm = function(o) return nn.LayerNorm(2, o) end,
    GroupNorm = function(o) return nn.GroupNorm(1, 2, o) end,
    MaxPool2d = function(o) return nn.MaxPool2d(2, o) end,
    AvgPool2d = function(o) return nn.AvgPool2d(2, o) end,
    CrossEntropyLoss = function(o) return nn.CrossEntropyLoss(o) end,
    cross_entropy = function(o) return atomo.F.cross_entropy(atomo.zeros(1, 2), atomo.tensor({1}, "i32"), o) end,
    exchange = function(o) o.comm = atomo.mpi.world return atomo.exchange(o) end,
    compressor = function(o) o.name = "svd" return atomo.compressor(o) end,
    ["compressor's options"] = function(o) return atomo.compressor("svd", o) end,
    verify = function(o) return atomo.verify("entry", o) end,
    train = function(o) return atomo.train(o) end,
    basis = function(o)
      o.analyze, o.synthesize = function(g) return g end, function(g) return g end
      return atomo.basis("mistaken", o)
    end,
    decomposition = function(o)
      o.decompose, o.reconstruct = function() end, function() end
      return atomo.decomposition("mistaken2", o)
    end,
    func = function(o)
      o.name, o.forward, o.backward = "f", function(_, a) return a end, function(_, g) return g end
      return atomo.func(o)
    end,
    gradcheck = function(o) return atomo.gradcheck(function(a) return a:sum() end, {atomo.zeros(2)}, o) end,
    encode = function(o) o.step, o.tensor = 1, 1 return atomo.compressor("entry"):encode(atomo.zeros(4, 2), o) end,
    zero_grad = function(o) return atomo.optim.sgd{params = params(), lr = 1}:zero_grad(o) end,
    load_state_dict = function(o)
      local m = nn.Linear(2, 2)
      return m:load_state_dict(m:state_dict(), o)
    end,
    ["data.synthetic"] = function(o) return atomo.data.synthetic(o) end,
    ["data.loader"] = function(o) o.set, o.batch = atomo.data.synthetic{train = 8}, 2 return atomo.data.loader(o) end,
    ema = function(o) o.params = params() return atomo.optim.ema(o) end,
    cosine = function(o) o.steps = 2 return atomo.schedule.cosine(o) end,
    step = function(o) o.every = 2 return atomo.schedule.step(o) end,
    multistep = function(o) o.milestones = {2} return atomo.schedule.multistep(o) end,
    one_cycle = function(o) o.steps = 2 return atomo.schedule.one_cycle(o) end,
    warmup = function(o) o.steps = 2 return atomo.schedule.warmup(o) end,
  }
  for name, make in pairs(made) do
    it(name, function() refused("unwonted", make, {unwonted = 1}) end)
  end
end)

describe("reading an unknown field is refused:", function()
  local function no_field(object, key, text)
    refused(text or "no such field", function() return object[key] end)
  end

  it("of an exchange, also one that chooses", function()
    for _, opts in ipairs {{}, {compress = "svd:ratio=4"}, {topology = "auto"}, {topology = "sharded"}} do
      opts.comm = atomo.mpi.world
      local ex = atomo.exchange(opts)
      no_field(ex, "stat", "exchange%.stat: .*did you mean 'stats'")
      no_field(ex, "topolgy", "did you mean 'topology'")
      no_field(ex, "learning_rate", "it has .*finish")
      assert.is_nil(ex.__len)
      assert.is_false(ex.plan)
    end
  end)

  it("of loaders", function()
    local loader = atomo.data.loader{set = atomo.data.synthetic{train = 8}.train, batch = 2}
    no_field(loader, "bach_size", "loader%.bach_size: .*did you mean 'batch'")
    no_field(loader, "batch_size", "did you mean 'batch'")
    no_field(loader, "step", "did you mean 'steps'")
    no_field(loader, 1)
    loader:close()
    no_field(loader, "epochs", "did you mean 'epoch'")
    local text = atomo.text.loader{tokens = atomo.zeros(50, "i32"), batch = 2, length = 4}
    no_field(text, "lenght", "did you mean 'length'")
  end)

  it("of a communicator and a request", function()
    local world = atomo.mpi.world
    no_field(world, "ranks", "communicator%.ranks: .*did you mean 'rank'")
    no_field(world, "all_reduce", "did you mean 'allreduce'")
    no_field(world, "world_size", "did you mean 'size'")
    local request = world:ibarrier()
    no_field(request, "waits", "did you mean 'wait'")
    request:wait()
    assert.is_nil(request.tensor)
  end)

  it("of compressors and messages", function()
    atomo.basis("mistaken_read", {analyze = function(g) return g end, synthesize = function(c) return c end})
    for _, spec in ipairs {"svd:ratio=4", "none", "topk:ratio=4", "mistaken_read:ratio=4"} do
      local c = atomo.compressor(spec)
      no_field(c, "encod", "compressor%.encod: .*did you mean 'encode'")
      no_field(c, "unbaised", "did you mean 'unbiased'")
      local msg = c:encode(atomo.ones(4, 2))
      no_field(msg, "bytesize", "message")
      no_field(msg, "nbyte", "did you mean 'nbytes'")
      assert.is_falsy(c.ef)
    end
  end)

  it("of an average of weights", function()
    local params = {atomo.param(atomo.zeros(2))}
    no_field(atomo.optim.ema{params = params}, "average", "did you mean 'averages'")
  end)
end)
