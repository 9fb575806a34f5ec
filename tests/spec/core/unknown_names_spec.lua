-- A name that a module or a tensor does not have is answered with the nearest one, at the caller's line.
local atomo = require "atomo"
local fails = require "support.fails"

describe("an unknown name of a module", function()
  local function unknown(texts, module, key)
    fails({"unknown_names_spec.lua:", unpack(texts)}, function() return module[key] end)
  end

  it("names the nearest, also for PyTorch's spelling", function()
    for _, case in ipairs {
      {"nn", "Covn2d", "Conv2d"}, {"nn", "Dropuot", "Dropout"},
      {"nn", "CrossEntropy", "CrossEntropyLoss"},
      {"F", "crossentropy", "cross_entropy"}, {"F", "max_pol2d", "max_pool2d"},
      {"optim", "SGD", "sgd"}, {"optim", "AdamW", "adamw"},
      {"schedule", "CosineAnnealingLR", "cosine"}, {"schedule", "MultiStepLR", "multistep"},
      {"schedule", "OneCycleLR", "one_cycle"}, {"schedule", "cosin", "cosine"},
      {"data", "opn", "open"}, {"mpi", "wrld", "world"}, {"text", "vocabluary", "vocabulary"},
      {"torch", "laod", "load"}, {"log", "opne", "open"}, {"cli", "pars", "parse"}, {"profile", "strat", "start"},
      {"atomo", "zero", "zeros"}, {"atomo", "optimizer", "optim"}, {"atomo", "sheduler", "schedule"},
    } do
      local module = case[1] == "atomo" and atomo or atomo[case[1]]
      unknown({("%s.%s: there is no such name (did you mean '%s'?)"):format(unpack(case))}, module, case[2])
    end
  end)

  it("lists the names where none is near", function()
    unknown({"optim.rprop", "it has adam, adamw", "sgd"}, atomo.optim, "rprop")
    unknown({"schedule.1:", "it has constant, cosine"}, atomo.schedule, 1)
    unknown({"nn.init.kaiming: there is no such name (did you mean 'kaiming_normal_'?)"}, atomo.nn.init, "kaiming")
  end)

  it("allows user-defined names and rawget", function()
    assert.is_nil(rawget(atomo.nn, "Mine"))
    atomo.nn.Mine = 1
    assert.equal(1, atomo.nn.Mine)
    atomo.nn.Mine = nil
    assert.is_nil(atomo.F.__call)
    assert.is_nil(atomo.mpi.__call)
    assert.is_nil(atomo.data.__call)
  end)
end)

describe("an unknown name of a tensor", function()
  local t = atomo.zeros(2, 3)
  local function unknown(texts, fn) fails({"unknown_names_spec.lua:", unpack(texts)}, fn) end

  it("names the nearest, or the equivalent of another library's name", function()
    unknown({"tensor.reshpe: a tensor has no such name (did you mean 'reshape'?)"}, function() return t:reshpe(6) end)
    unknown({"tensor.matmull", "'matmul'"}, function() return t:matmull(t) end)
    unknown({"tensor.require_grad", "'requires_grad'", "must be set before it is read"}, function()
      return t.require_grad
    end)
    unknown({"tensor.T: a tensor has no such name; write t:t()"}, function() return t.T end)
    unknown({"tensor.ndim", "write t:dim()"}, function() return t.ndim end)
    unknown({"tensor.numpy", "t:totable()"}, function() return t:numpy() end)
    unknown({"tensor.device", "main memory"}, function() return t.device end)
    unknown({"tensor.repeat", "t:tile(...)", "a word of Lua"}, function() return t["repeat"](t, 2) end)
    unknown({"tensor.masked_fill_", "atomo.where(mask, value, t)"}, function() return t:masked_fill_(t, 1) end)
    unknown({"tensor.any", "t:ne(0):sum():item() > 0"}, function() return t:any() end)
  end)

  it("allows user-defined fields", function()
    local u = atomo.zeros(1)
    assert.is_nil(u.owner)
    assert.is_nil(u.id)
    assert.is_nil(u.grad)
    u.reshap = 5
    assert.equal(5, u.reshap)
  end)

  it("suggestions for other names exist", function()
    local names = "t transpose dim numel to dtype int float totable data save_npy matmul split size item uniform_ " ..
      "tile index_select expand view clamp clamp_ remainder floor max min ne eq abs sqrt reciprocal log sin cos " ..
      "copy_ permute index_add_ scatter_add_ isnan"
    for name in names:gmatch "%S+" do assert.equal("function", type(t[name]), name) end
    assert.is_truthy(atomo.where and atomo.F.softmax and atomo.F.log_softmax)
  end)
end)

describe("a name of another library's modules", function()
  local m = atomo.nn.Sequential {atomo.nn.Linear(2, 2)}

  it("is answered with the form to use", function()
    for name, text in pairs {clone = "other:load_state_dict(m:state_dict())", cuda = "main memory",
      evaluate = "m:eval()", zeroGradParameters = "m:zero_grad()", register_forward_hook = "there are no hooks"} do
      for _, module in ipairs {m, m[1]} do
        fails({"unknown_names_spec.lua:", ("module.%s: a module has no such name"):format(name), text}, function()
          module[name](module)
        end)
      end
    end
  end)

  it("may be a field or a method of the user's; other names that are not set are nil", function()
    local Own = atomo.nn.Module:extend "Own"
    function Own:clone() return self end
    local own = Own()
    own.clone_count = 3
    assert.equal(own, own:clone())
    assert.equal(3, own.clone_count)
    assert.is_nil(own.half)
    assert.is_nil(own.quarter)
    assert.is_nil(m.modules)
  end)
end)

describe("a name of another library's optimizers", function()
  it("is answered with the form to use", function()
    local o = atomo.optim.adam {params = {atomo.param {1}}}
    fails({"unknown_names_spec.lua:", "optimizer.param_groups", "write optimizer.groups"}, function()
      o.param_groups[1].lr = 1
    end)
    fails({"unknown_names_spec.lua:", "optimizer.add_param_group"}, function() o:add_param_group {params = {}} end)
    fails({"unknown_names_spec.lua:", "adam: group.betas", "group.beta1 and group.beta2"}, function()
      o.groups[1].betas = {0.5, 0.9}
    end)
    assert.is_nil(o.state)
  end)
end)

describe("a method of tensors as a function of atomo", function()
  it("names the method", function()
    for _, name in ipairs {"sum", "cumsum", "matmul", "add_"} do
      local text = ("atomo.%s: there is no such name; it is a method of tensors: t:%s(...)"):format(name, name)
      fails({"unknown_names_spec.lua:", text}, function() return atomo[name](atomo.ones(2)) end)
    end
    assert.is_nil(atomo.__add)
  end)
end)

describe("an operator of Lua that has one result for a whole tensor", function()
  local t = atomo.ones(2)

  it("names the method instead", function()
    for _, compare in ipairs {function() return t < t end, function() return t <= t end, function() return t > t end,
      function() return t >= t end} do
      fails({"unknown_names_spec.lua:", "a:lt(b) compares elements", "a:item() < b:item()"}, compare)
    end
    for _, join in ipairs {function() return "loss " .. t end, function() return t .. t end,
      function() return t .. 1 end} do
      fails({"unknown_names_spec.lua:", "write tostring(t), or t:item()", "atomo.cat({a, b}, dim)"}, join)
    end
  end)

  it("says so of a freed tensor, and of % too", function()
    local u = atomo.ones(2)
    u:free()
    fails({"unknown_names_spec.lua:", "mod: a tensor that was freed by :free()"}, function() return u % 2 end)
    fails({"mod: a tensor that was freed"}, function() return 2 % u end)
    fails({"concat: a tensor that was freed"}, function() return "a" .. u end)
    fails({"lt: a tensor that was freed"}, function() return u < u end)
  end)
end)

describe("a method of tensors as a property", function()
  local t = atomo.zeros(2, 3)

  it("names the correct form", function()
    fails({"unknown_names_spec.lua:", "tensor.shape is a method: write t:shape(...)", "t:size(1)"}, function()
      return t.shape[1]
    end)
    fails({"unknown_names_spec.lua:", "tensor.shape is a method"}, function() return #t.shape end)
    fails({"tensor.size is a method"}, function() return t.size[1] end)
    fails({"tensor.mean is a method: write t:mean(...)"}, function() return t.mean.item end)
  end)

  it("and another function is refused as by Lua, at the line", function()
    fails({"unknown_names_spec.lua:", "attempt to index a function value with 'x'"}, function() return fails.x end)
    fails({"unknown_names_spec.lua:", "attempt to get length of a function value"}, function() return #fails end)
  end)
end)

describe("an unknown option", function()
  it("of atomo.train, its outer step and verify is answered with the nearest one", function()
    fails({"fails.lua:5: train: unknown option 'epoch'", "did you mean 'epochs'"}, atomo.train, {epoch = 1})
    fails({"train: unknown option 'loacl_steps'", "did you mean 'local_steps'"}, atomo.train, {loacl_steps = 1})
    fails({"verify: unknown option 'drws'", "did you mean 'draws'"}, atomo.verify, "entry", {drws = 1})
    local inner = atomo.optim.sgd {params = {atomo.param(atomo.zeros(2))}, lr = 1}
    fails({"train: outer: unknown option 'momentun'", "did you mean 'momentum'"}, require "atomo.train.local_sgd",
      inner, atomo.exchange {}, {momentun = 1})
  end)
end)
