-- Errors name a tensor by dtype and shape, and print no values of it, wherever one is passed by mistake: as argument,
-- option or key.
local atomo = require "atomo"
local brief = require "atomo.core.brief"
local own_fields = require "atomo.core.own_fields"
local nn = atomo.nn

it("brief(v) names a tensor, and cuts a long text", function()
  assert.equal("a tensor f32 [2,3]", brief(atomo.ones(2, 3)))
  assert.equal("a tensor i32 []", brief(atomo.tensor(3, "i32")))
  assert.equal("nil 2.5 true x a table a function", table.concat({brief(nil), brief(2.5), brief(true), brief "x",
    brief {}, brief(print)}, " "))
  assert.equal("entry:ratio=4", brief(atomo.compressor "entry:ratio=4"))
  assert.equal("a table", brief(setmetatable({}, {__tostring = function() error "broken" end})))
  assert.equal("one", brief(setmetatable({}, {__tostring = function() return "one\ntwo" end})))
  assert.equal(("x"):rep(200) .. "... (1000 characters)", brief(("x"):rep(1000)))
  local freed = atomo.ones(2)
  freed:free()
  assert.equal("[tensor freed by :free()]", brief(freed))
end)

describe("an error prints no tensor:", function()
  local MARK = "7.125"
  local big, small = atomo.full({60, 60}, tonumber(MARK)), atomo.ones(2, 3)

  local function try(name, fn, ...)
    local ok, why = pcall(fn, ...)
    if ok then return end
    why = tostring(why)
    assert(not why:find(MARK, 1, true), ("%s: %s"):format(name, why:sub(1, 200)))
  end

  local lists = {{big}, {1, big}, {1, 1, big}, {big, big}, {big, 1, big}, {"a", big}, {{}, big}, {big, {}}, {{big}},
    {{1, big}}, {small, big}, {small, small, big}, {small, 1, big}, {small, 1, 1, big}, {small, {}, big}}

  -- The first argument of these is the caller's name; print returns what it prints.
  local left_out = {check_dropout = true, transpose_window = true, save_npy = true}

  local function calls(prefix, holder, self)
    for name, fn in pairs(own_fields(holder)) do
      local called = type(fn) == "function" or type(fn) == "table" and (debug.getmetatable(fn) or {}).__call
      if type(name) == "string" and called and not left_out[name] and not name:find "^_" then
        for _, list in ipairs(lists) do
          if self then try(prefix .. name, fn, self, unpack(list)) else try(prefix .. name, fn, unpack(list)) end
        end
      end
    end
  end

  it("functions", function()
    for name, holder in pairs {atomo = atomo, ["atomo.F"] = atomo.F, ["atomo.nn"] = nn, ["nn.init"] = nn.init,
      ["atomo.optim"] = atomo.optim, ["atomo.schedule"] = atomo.schedule} do
      calls(name .. ".", holder)
    end
  end)

  it("methods", function()
    local net = nn.Linear(2, 2)
    local optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1}
    local loader = atomo.data.tensors {x = atomo.ones(4, 2), y = atomo.zeros(4):int(), batch = 2}
    calls("tensor:", atomo.Tensor, small)
    for _, object in ipairs {atomo.exchange {}, atomo.compressor "svd:ratio=4", optimizer, loader,
      atomo.optim.ema {params = net:parameters()}} do
      calls("object:", getmetatable(object).__index, object)
    end
    calls("module:", nn.Module, net)
  end)

  it("options", function()
    local net, set = nn.Linear(2, 2), atomo.data.synthetic {train = 8, test = 8}
    local base = {
      {atomo.exchange, {}, "compress topology overlap min_size seed downlink fuse_small message_buckets stall_warn"},
      {atomo.optim.adam, {params = net:parameters()}, "params lr betas beta1 eps amsgrad weight_decay momentum"},
      {atomo.schedule.cosine, {lr = 0.1, steps = 5}, "lr steps warmup final"},
      {atomo.data.loader, {set = set.train, batch = 4}, "set batch augment shuffle seed rank size mean std drop_last"},
      {atomo.train, {model = net, data = atomo.data.loader {set = set.train}, quiet = true,
        optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1}}, "model data loss optimizer schedule " ..
        "exchange epochs max_steps accumulate local_steps outer clip_norm nonfinite log save save_every resume " ..
        "state precision sharded_optimizer"},
    }
    for _, case in ipairs(base) do
      for key in case[3]:gmatch "%S+" do
        local o = {}
        for name, value in pairs(case[2]) do o[name] = value end
        o[key] = big
        try(key, case[1], o)
      end
      local o = {[big] = 1}
      for name, value in pairs(case[2]) do o[name] = value end
      try("a tensor as key", case[1], o)
    end
    for _, entry in ipairs(atomo.compressors()) do
      for _, option in ipairs(entry.options) do
        try(entry.name, atomo.compressor, {name = entry.name, [option.name or option] = big})
      end
    end
  end)

  it("keys of states and objects", function()
    local net = nn.Linear(2, 2)
    local optimizer = atomo.optim.sgd {params = net:parameters(), lr = 0.1}
    try("load_state_dict", net.load_state_dict, net, {[big] = 1})
    try("load_state_dict", net.load_state_dict, net, {weight = big, bias = big})
    try("load_state_dict", optimizer.load_state_dict, optimizer, {steps = 1, lr = 1, [big] = 2})
    local ex = atomo.exchange {}
    for _, object in ipairs {net, ex, atomo, nn, small, optimizer} do
      try("read", function() return object[big] end)
      try("write", function() object[big] = nil end)
    end
    try("json", require("atomo.core.json").encode, {[big] = 1})
  end)
end)

it("a gradient in place of its number is named", function()
  local ex = atomo.exchange {}
  local ok, why = pcall(ex.push, ex, atomo.ones(2, 3))
  assert.is_false(ok)
  assert.matches("exchange: gradient number a tensor f32 %[2,3%], expected 1, 2, ...", why)
end)
