-- Every option has an effect or is refused. The names come from the program's own errors about unknown options, so that
-- an option without a line here fails. Each line has a value that must change the result.
local atomo = require "atomo"
local nn, F, optim, schedule = atomo.nn, atomo.F, atomo.optim, atomo.schedule

local function randn(...) return atomo.randn(...) end
local image = function() return randn(2, 6, 6, 4) end
local sequence = function() return randn(3, 2, 4) end
local logits, labels = function() return randn(4, 3) end, function() return atomo.tensor({0, 2, 1, 2}, "i32") end
local half = function() return atomo.rand(4, 3) end

--- A layer's result in training mode, and of a second pass in evaluation mode.
local function layer(make, input)
  return function(opts)
    local m = make(opts)
    local state = {}
    for name, t in pairs(m:state_dict()) do state[name] = t:totable() end
    local x = input()
    local trained = {m(x)}
    m:eval()
    return {state, trained, {m(x)}}
  end
end

local function optimizer(kind)
  return function(opts)
    local w = atomo.param {{1, -2}, {3, 0.5}}
    local o = {params = {w}, lr = 0.1}
    for name, v in pairs(opts) do o[name] = v end
    if o.nesterov then o.momentum = 0.5 end
    o = optim[kind](o)
    for step = 1, 3 do
      w.grad = atomo.tensor {{1, -1 / step}, {step, 0.5}}
      o:step()
    end
    return w
  end
end

local function rates(kind, needed)
  return function(opts)
    local o = {}
    for name, v in pairs(needed) do o[name] = v end
    for name, v in pairs(opts) do o[name] = v end
    local fn, list = schedule[kind](o), {}
    for step = 0, 11 do list[step + 1] = fn(step) end
    return list
  end
end

local data = atomo.data.synthetic {train = 10, test = 1}
local function batches(opts)
  local o = {set = data.train, batch = 3}
  for name, v in pairs(opts) do o[name] = v end
  local list = {}
  for batch in atomo.data.loader(o):epoch(1) do list[#list + 1] = {batch.x:totable(), batch.y:totable()} end
  return list
end

local function samples(opts)
  local o, list = {x = data.train.labels, y = data.train.labels, batch = 3}, {}
  for name, v in pairs(opts) do o[name] = v end
  for batch in atomo.data.tensors(o):epoch(1) do list[#list + 1] = {batch.x:totable(), batch.y:totable()} end
  return list
end

local function windows(opts)
  local o = {tokens = atomo.arange(41):to "i32", batch = 2, length = 5}
  for name, v in pairs(opts) do o[name] = v end
  local list = {}
  for batch in atomo.text.loader(o):epoch(1) do list[#list + 1] = batch.x:totable() end
  return list
end

local adam = {lr = 0.2, weight_decay = 0.5, beta1 = 0.5, beta2 = 0.5, betas = {0.5, 0.6}, eps = 0.5,
  amsgrad = "trajectory", params = "given"}

-- {name, function of options, {option = another value}}; "given": the case itself gives it; "trajectory" and "no effect
-- here": tested elsewhere (golden trajectories) or without effect on results.
local cases = {
  {"Linear", layer(function(o) return nn.Linear(4, 3, o) end, image), {bias = false}},
  {"Conv2d", layer(function(o) return nn.Conv2d(4, 4, 3, o) end, image), {bias = false, stride = 2, padding = 1,
    dilation = 2, groups = 2, padding_mode = "needs padding", init = function(w) w:fill_(1) end}},
  {"Conv2d", layer(function(o)
    return nn.Conv2d(4, 4, 3, {padding = 1, padding_mode = o.padding_mode, bogus = o.bogus})
  end, image), {padding_mode = "reflect"}, "partly"},
  {"ConvTranspose2d", layer(function(o)
    o.stride = o.stride or o.output_padding and 2
    return nn.ConvTranspose2d(4, 4, 3, o)
  end, image), {bias = false, stride = 2, padding = 1, output_padding = 1, dilation = 2, groups = 2}},
  {"BatchNorm2d", layer(function(o) return nn.BatchNorm2d(4, o) end, image), {eps = 0.5, momentum = 0.5,
    affine = false, track_running_stats = false, relu = true}},
  {"BatchNorm1d", layer(function(o) return nn.BatchNorm1d(4, o) end, sequence), {eps = 0.5, momentum = false,
    affine = false, track_running_stats = false, relu = true}},
  {"LayerNorm", layer(function(o) return nn.LayerNorm(4, o) end, image), {eps = 0.5, elementwise_affine = false}},
  {"GroupNorm", layer(function(o) return nn.GroupNorm(2, 4, o) end, image), {eps = 0.5, affine = false}},
  {"max_pool2d", layer(function(o) return nn.MaxPool2d(3, o) end, image), {stride = 1, padding = 1, dilation = 2,
    ceil_mode = "needs a rest", return_indices = true}},
  {"max_pool2d", layer(function(o) return nn.MaxPool2d(4, o) end, image), {ceil_mode = true}, "partly"},
  {"avg_pool2d", layer(function(o)
    o.padding = o.padding or o.count_include_pad ~= nil and 1 or nil
    return nn.AvgPool2d(o.ceil_mode and 4 or 3, o)
  end, image), {stride = 1, padding = 1, ceil_mode = true, count_include_pad = false, divisor_override = 5}},
  {"GELU", layer(function(o) return nn.GELU(o) end, image), {approximate = "tanh"}},
  {"Embedding", layer(function(o) return nn.Embedding(4, 3, o) end, labels), {padding_idx = 2}},
  {"MultiheadAttention", layer(function(o)
    local m = nn.MultiheadAttention(4, 2, o)
    m.takes = {kdim = o.kdim or 4, vdim = o.vdim or 4}
    local forward = m.forward
    rawset(m, "forward", function(self, x)
      return forward(self, x, randn(3, 2, self.takes.kdim), randn(3, 2, self.takes.vdim))
    end)
    return m
  end, sequence), {dropout = 0.5, bias = false, batch_first = true, causal = true, kdim = 6, vdim = 6}},
  {"LSTM", layer(function(o)
    o.num_layers = o.num_layers or o.dropout and 2
    return nn.LSTM(4, 3, o)
  end, sequence), {num_layers = 2, bias = false, batch_first = true, dropout = 0.5, bidirectional = true}},
  {"GRU", layer(function(o)
    o.num_layers = o.num_layers or o.dropout and 2
    return nn.GRU(4, 3, o)
  end, sequence), {num_layers = 2, bias = false, batch_first = true, dropout = 0.5, bidirectional = true}},
  {"CrossEntropyLoss", function(o) return nn.CrossEntropyLoss(o)(logits(), labels()) end, {reduction = "sum",
    weight = atomo.tensor {1, 2, 3}, ignore_index = 2, label_smoothing = 0.2}},
  {"NLLLoss", function(o) return nn.NLLLoss(o)(logits(), labels()) end, {reduction = "none",
    weight = atomo.tensor {1, 2, 3}, ignore_index = 2}},
  {"MSELoss", function(o) return nn.MSELoss(o)(logits(), half()) end, {reduction = "sum"}},
  {"BCEWithLogitsLoss", function(o) return nn.BCEWithLogitsLoss(o)(logits(), half()) end, {reduction = "none",
    weight = atomo.tensor {1, 2, 3}, pos_weight = atomo.tensor {1, 2, 3}}},
  {"cross_entropy", function(o) return F.cross_entropy(logits(), labels(), o) end, {reduction = "none",
    weight = atomo.tensor {1, 2, 3}, ignore_index = 2, label_smoothing = 0.2}},
  {"linear_cross_entropy", function(o)
    return F.linear_cross_entropy(logits(), atomo.eye(3), labels(), o)
  end, {reduction = "sum", bias = atomo.tensor {1, 2, 3}, ignore_index = 2, label_smoothing = 0.2}},
  {"nll_loss", function(o) return F.nll_loss(logits(), labels(), o) end, {reduction = "sum",
    weight = atomo.tensor {1, 2, 3}, ignore_index = 2}},
  {"mse_loss", function(o) return F.mse_loss(logits(), half(), o) end, {reduction = "none"}},
  {"bce_with_logits", function(o) return F.bce_with_logits(logits(), half(), o) end, {reduction = "sum",
    weight = atomo.tensor {1, 2, 3}, pos_weight = atomo.tensor {1, 2, 3}}},
  {"accuracy", function(o) return F.accuracy(logits(), labels(), o) end, {ignore_index = 2}},
  {"batch_norm", function(o)
    local opts = {training = true, running_mean = atomo.ones(4), running_var = atomo.full({4}, 2)}
    for name, v in pairs(o) do opts[name] = v end
    local y = F.batch_norm(image(), nil, nil, opts)
    return {y:totable(), opts.running_mean:totable(), opts.running_var:totable()}
  end, {training = false, running_mean = atomo.zeros(4), running_var = atomo.zeros(4), momentum = 0.5, eps = 0.5,
    relu = true, residual = atomo.ones(2, 6, 6, 4)}},
  {"attention", function(o)
    return F.scaled_dot_product_attention(sequence(), sequence(), sequence(), o)
  end, {heads = 2, causal = true, dropout = 0.5, mask = atomo.tensor({{1, 0}, {0, 1}}, "u8"),
    key_mask = atomo.tensor({{1, 0}, {0, 1}, {0, 0}}, "u8")}},
  {"conv2d", function(o)
    return F.conv2d(image(), o.groups and randn(4, 3, 3, 2) or randn(4, 3, 3, 4), nil, o)
  end, {stride = 2, padding = 1, dilation = 2, groups = 2}},
  {"sgd", optimizer "sgd", {lr = 0.2, momentum = 0.5, dampening = "needs momentum", weight_decay = 0.5,
    nesterov = true, params = "given"}},
  {"sgd", optimizer "sgd", {dampening = 0.5}, "partly", {momentum = 0.5}},
  {"adam", optimizer "adam", adam}, {"adamw", optimizer "adamw", adam},
  {"lars", optimizer "lars", {lr = 0.2, momentum = 0.5, weight_decay = 0.5, trust = 0.5, eps = 5, params = "given"}},
  {"lamb", optimizer "lamb", {lr = 0.2, weight_decay = 0.5, beta1 = 0.5, beta2 = 0.5, betas = {0.5, 0.6}, eps = 0.5,
    params = "given"}},
  {"schedule.constant", rates("constant", {lr = 1}), {lr = 2, warmup = 3}},
  {"schedule.cosine", rates("cosine", {lr = 1, steps = 10}), {lr = 2, steps = 5, min = 0.5, warmup = 3}},
  {"schedule.step", rates("step", {lr = 1, every = 4}), {lr = 2, every = 2, gamma = 0.5, warmup = 3}},
  {"schedule.multistep", rates("multistep", {lr = 1, milestones = {4, 8}}), {lr = 2, milestones = {3}, gamma = 0.5,
    warmup = 3}},
  {"schedule.warmup", rates("warmup", {steps = 4, after = schedule.constant {lr = 1}}), {steps = 8,
    after = function() return 7 end}},
  {"schedule.one_cycle", rates("one_cycle", {lr = 1, steps = 12}), {lr = 2, steps = 8, rise = 0.5, div = 5,
    final_div = 5, anneal = "linear"}},
  {"ema", function(o)
    local w = atomo.param {1, 2}
    local ema = optim.ema {params = {w}, decay = o.decay, bogus = o.bogus}
    w:detach():fill_(5)
    ema:update()
    return ema.averages[1]
  end, {decay = 0.5, params = "given"}},
  {"loader", batches, {set = "given", batch = 2, rank = "needs size", size = 2, seed = 3, shuffle = false,
    augment = {crop = 4}, mean = {1, 1, 1}, std = {2, 2, 2}, drop_last = true, background = "no effect here"}},
  {"loader", batches, {rank = 1}, "partly", {size = 2}},
  {"loader: augment", function(o) return batches {augment = o} end, {crop = 4, flip = true}},
  {"loader: augment", function(o) return batches {augment = {{"colour_jitter", brightness = o.brightness,
    contrast = o.contrast, saturation = o.saturation, bogus = o.bogus}}} end, {brightness = 0.5, contrast = 0.5,
    saturation = 0.5}},
  {"tensors", samples, {x = "given", y = "given", batch = 2, rank = "needs size", size = 2, seed = 3, shuffle = false,
    drop_last = true}},
  {"tensors", samples, {rank = 1}, "partly", {size = 2}},
  {"text.loader", windows, {tokens = "given", batch = 3, length = 4, rank = "needs size", size = 2, seed = 3,
    shuffle = false}},
  {"text.loader", windows, {rank = 1}, "partly", {size = 2}},
  {"gradcheck", function(o)
    local _, worst = atomo.gradcheck(function(a) return (a * 3):sin() end, {randn(3)}, o)
    return worst
  end, {eps = 0.3, tolerance = "no effect here"}},
}

local function plain(v)
  if type(v) ~= "table" then return v end
  if type(v.totable) == "function" then return v:totable() end
  local t = {}
  for key, each in pairs(v) do t[key] = plain(each) end
  return t
end

--- The result with these options, every random number drawn anew.
local function result(case, opts)
  local o = {}
  for name, v in pairs(case[5] or {}) do o[name] = v end
  for name, v in pairs(opts) do o[name] = v end
  atomo.manual_seed(11)
  return plain(case[2](o))
end

local function fails(case, opts, texts)
  local ok, message = pcall(result, case, opts)
  assert.is_false(ok, "accepted")
  for _, text in ipairs(texts) do
    assert.truthy(tostring(message):find(text, 1, true), ("'%s' is not in: %s"):format(text, tostring(message)))
  end
  return message
end

local notes = {given = true, trajectory = true, ["no effect here"] = true}
local function is_note(v) return type(v) == "string" and (notes[v] or v:match "^needs ") end

describe("options of", function()
  for _, case in ipairs(cases) do
    if case[4] ~= "partly" then
      it(case[1] .. ": another name is refused with all that there are, each of which stands here", function()
        local message = tostring(fails(case, {bogus = 1}, {"unknown option 'bogus'", "options are "}))
        local listed = 0
        for name in message:match "options are ([%w_, ]+)":gmatch "[%w_]+" do
          assert.is_true(case[3][name] ~= nil, "no line for option " .. name)
          listed = listed + 1
        end
        for _ in pairs(case[3]) do listed = listed - 1 end
        assert.equal(0, listed)
      end)
    end
    for name, value in pairs(case[3]) do
      if not is_note(value) then
        it(("%s: %s changes the result"):format(case[1], name), function()
          assert.is_false(pcall(assert.same, result(case, {}), result(case, {[name] = value})))
        end)
        it(("%s: %s of another type is refused by name"):format(case[1], name), function()
          if name == "betas" then return fails(case, {betas = 1}, {"betas"}) end
          local wrong = type(value) == "table" and "text" or {}
          if type(value) == "function" then wrong = 3 end
          fails(case, {[name] = wrong}, {name})
          if type(value) == "boolean" and name ~= "momentum" then fails(case, {[name] = 0}, {"true or false"}) end
        end)
      end
    end
  end

  it("a misspelt name gets a suggestion", function()
    local ok, message = pcall(nn.LayerNorm, 4, {elementwise_afine = false})
    assert.is_false(ok)
    assert.matches("did you mean 'elementwise_affine'", message)
  end)

  it("layers that have none are refused", function()
    for _, name in ipairs {"ReLU", "SiLU", "Tanh", "Sigmoid", "GlobalAvgPool"} do
      local ok, message = pcall(nn[name], {inplace = true})
      assert.is_false(ok, name)
      assert.matches(name .. ": got a table, it takes no options", message)
    end
    for _, make in ipairs {function() return nn.Linear(2, 3, false) end, function() return nn.BatchNorm2d(3, 1e-3) end,
      function() return nn.LSTM(2, 3, 2) end} do
      local ok, message = pcall(make)
      assert.is_false(ok)
      assert.matches("options are a ", message)
    end
  end)
end)

describe("attention", function()
  it("attends to value alone if no key is given", function()
    local m, x, v = nn.MultiheadAttention(4, 2), randn(3, 2, 4), randn(3, 2, 4)
    assert.same(m(x, x, v):totable(), m(x, nil, v):totable())
    assert.is_false(pcall(assert.same, m(x):totable(), m(x, nil, v):totable()))
  end)

  it("refuses queries that do not fit, and takes expanded ones with their gradient", function()
    local k, v = randn(3, 2, 4), randn(3, 2, 4)
    local one = atomo.param(randn(1, 2, 4))
    assert.is_false(pcall(F.scaled_dot_product_attention, one, k, v))
    local whole = atomo.param(atomo.cat({one:detach(), one:detach(), one:detach()}, 1))
    local a = F.scaled_dot_product_attention(one:expand(3, 2, 4), k, v)
    local b = F.scaled_dot_product_attention(whole, k, v)
    assert.same(b:totable(), a:totable())
    a:sum():backward()
    b:sum():backward()
    local sum = whole.grad:sum(1)
    assert.is_true((sum:view(-1) - one.grad:view(-1)):norm_value() < 1e-5)
  end)
end)
