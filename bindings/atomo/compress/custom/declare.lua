--- atomo.basis and atomo.decomposition: declare a compressor by two Lua functions (stage 4). docs/compressors.md shows
-- how to write and verify one.
local f = require "atomo.ffi"
local spec = require "atomo.compress.spec"
local adapters = require "atomo.compress.custom.adapter"
local custom = require "atomo.compress.custom"
local new_free = require "atomo.compress.custom.free"
local brief = require "atomo.core.brief"
local raise = f.raise

--- Returns the options of a scripted compressor: those of the C codec `of` (nil: none), those of codec _list named in
--- `more`, ef, then the user's. An option's field `owner` is "entry", "_list", "ef" or "user".
local function option_list(of, more, standards, user)
  local list = {}
  local function add(option, owner)
    local copy = {}
    for key, value in pairs(option) do copy[key] = value end
    copy.owner, copy.own_index, copy.index = owner, option.index, #list
    if standards[copy.key] ~= nil then copy.standard = standards[copy.key] end
    list[#list + 1], list[copy.key] = copy, copy
  end
  for _, option in ipairs(of and spec.known()[of].options or {}) do
    if option.key ~= "ef" then add(option, of) end -- error feedback works on the gradient, not on coefficients
  end
  for _, key in ipairs(more or {}) do add(spec.known()._list.options[key], "_list") end
  add({key = "ef", kind = "bool", standard = 0, help = "error feedback: adds what was not sent to the next gradient"},
    "ef")
  local names = {}
  for key in pairs(user) do names[#names + 1] = key end
  table.sort(names)
  for _, key in ipairs(names) do
    if list[key] or key == "name" then raise(("%s is an option already"):format(key)) end
    add({key = key, kind = "float", standard = user[key], min = -math.huge, max = math.huge, help = "its own"}, "user")
  end
  return list
end

--- Returns the option values of a C codec in its order: given[key], or NaN (C's default).
local function values_of(codec, given)
  local values = {}
  for j, option in ipairs(spec.known()[codec].options) do values[j] = given[option.key] or 0 / 0 end
  return values
end

--- Splits option values by owner: an array for each C codec, the user's by name. Also returns the label: the
--- compressor's name and the user's options. Messages hold a hash of it, so other options' messages are refused.
local function split(entry, values)
  local parts, label = {entry = values_of("entry", {}), _list = values_of("_list", {}), user = {}}, entry.name
  parts.given = {}
  for j, option in ipairs(entry.options) do
    parts.given[option.key] = values[j] == values[j]
    local v = parts.given[option.key] and values[j] or option.standard
    if option.owner == "ef" then
      parts.ef = v ~= 0
    elseif option.owner == "user" then
      parts.user[option.key] = v
      label = ("%s %s=%.14g"):format(label, option.key, v)
    else
      parts[option.owner][option.own_index + 1] = v
      parts[option.key] = v
    end
  end
  return parts, label
end

local function check_table(what, name, t, wanted, optional)
  if type(name) ~= "string" or not name:match "^%a[%w_%-]*$" then
    raise(("%s: name is %s, expected letters, digits, _ and -"):format(what, brief(name)))
  end
  if type(t) ~= "table" then raise(("%s: %s: expected a table, got a %s"):format(what, name, type(t))) end
  for _, key in ipairs(wanted) do
    if type(t[key]) ~= "function" then
      raise(("%s: %s: %s is %s, expected a function"):format(what, name, key,
        t[key] == nil and "missing" or "a " .. type(t[key])))
    end
  end
  local all = {unpack(wanted)}
  for key, kind in pairs(optional) do
    all[#all + 1] = key
    if t[key] ~= nil and not (" " .. kind .. " "):find(" " .. type(t[key]) .. " ", 1, true) then
      raise(("%s: %s: %s is a %s, expected a %s"):format(what, name, key, type(t[key]), kind:gsub(" ", " or a ")))
    end
  end
  table.sort(all)
  for key in pairs(t) do
    local known = false
    for _, name_known in ipairs(all) do known = known or key == name_known end
    if not known then
      raise(("%s: %s: unknown field '%s'%s; fields are %s"):format(what, name, brief(key),
        spec.suggest(brief(key), all), table.concat(all, ", ")))
    end
  end
end

--- Registers a scripted compressor. Its make() receives `inner` (Compressor.inner), which opens an adapter's C codec.
local function register(name, t, options, make_adapters)
  local entry = {name = name, summary = t.summary or "written in Lua", source = t.source or "Lua", unbiased = true,
    options = options}
  function entry.make(text, values, key, inner)
    local parts, label = split(entry, values)
    return custom({name = name, text = text, seed = key.seed, ef = parts.ef}, make_adapters(inner, parts, label, key))
  end
  spec.register(entry)
end

--- Declares a compressor by a fixed orthonormal basis; use it as atomo.compressor "name:ratio=32", with entry's
--- options. analyze(g, options) returns as many coefficients as g has elements; synthesize(c, shape, options) returns
--- the tensor of that shape with coefficients c. options = {key = default} are passed to both functions.
---@param name string
---@param t {analyze: function, synthesize: function, options: table?, summary: string?, source: string?}
---@return table its stage table, as atomo.compressors lists it
---@usage atomo.basis("identity_ref", {analyze = function(g) return g:view(-1) end, synthesize = function(c, shape)
---@usage return c:view(shape) end})
local function basis(name, t)
  check_table("basis", name, t, {"analyze", "synthesize"}, {options = "table", summary = "string", source = "string"})
  register(name, t, option_list("entry", nil, {}, t.options or {}), function(inner, parts, label, key)
    return {adapters.basis(inner("entry", parts.entry, key, label), name, parts.user, t.analyze, t.synthesize)}
  end)
end

local function itself(g) return g end

--- Checks field bits of a decomposition: a number, or a list of one for each factor.
local function check_bits(name, bits)
  local allowed = spec.known()._list.options.bits.choices
  for k, v in ipairs(type(bits) == "table" and bits or {bits}) do
    local known = false
    for _, choice in ipairs(allowed) do known = known or tonumber(choice) == v end
    if not known then
      raise(("decomposition: %s: bits%s is %s, expected %s"):format(name,
        type(bits) == "table" and ("[%d]"):format(k) or "", brief(v), table.concat(allowed, ", ")))
    end
  end
end

--- Declares a compressor by atoms that depend on the gradient. decompose(g, options, info) returns lambda [n] and
--- factors, a tensor [n, d] or a list of up to three, such that g = sum_i lambda_i atom(row i of the factors).
--- reconstruct(lambda, factors, shape, options) returns this sum for any number of atoms. n and d may depend only on
--- the shape. info: {tensor= (its number), name=, step=, rank=, state=}; state is a table of tensors, numbers, texts,
--- booleans and tables, kept for the tensor on this rank until the next step, and saved in checkpoints. A step that is
--- given up leaves it as it was. bits = 8 sends factors in 8 bits, bits = {8, 4} each factor in its own; atoms must
--- then be linear in each factor below 32 bits. A factor of type i32 (positions) is sent exactly, up to 2^24 in
--- magnitude. rest = true: what decompose returns is always sent, and the rest of g is sampled by entries.
---@param name string
---@param t {decompose: function, reconstruct: function, bits: integer|integer[]|nil, rest: boolean?, options: table?}
---@return table its stage table, as atomo.compressors lists it
---@usage atomo.decomposition("entries_ref", {decompose = function(g) local v = g:view(-1) return v:abs(),
---@usage v:sign():view(-1, 1) end, reconstruct = function(lambda, f, shape) return (lambda * f:view(-1)):view(shape)
---@usage end})
local function decomposition(name, t)
  check_table("decomposition", name, t, {"decompose", "reconstruct"},
    {options = "table", summary = "string", source = "string", bits = "number table", rest = "boolean"})
  if t.bits ~= nil then check_bits(name, t.bits) end
  local each = type(t.bits) == "table" and {unpack(t.bits)} or nil
  local options = option_list(t.rest and "entry" or "_list", t.rest and {"bits"} or nil,
    {bits = not each and t.bits or nil}, t.options or {})
  register(name, t, options, function(inner, parts, label, key)
    local bits = not parts.given.bits and each or nil
    if not t.rest then
      return {adapters.atoms(inner("_list", parts._list, key, label), name, parts.user, t, bits)}
    end
    local head = inner("_list", values_of("_list", {atoms = 1e15, bits = parts.bits}),
      {seed = (key.seed + 2 ^ 52) % 2 ^ 53, way = key.way}, label)
    return {adapters.atoms(head, name, parts.user, t, bits),
      adapters.basis(inner("entry", parts.entry, key, label), name, parts.user, itself, itself)}
  end)
end

--- Declares a free compressor, with the verbs of GRACE: encode(g, options, info) returns what is sent, a tensor, a
--- text, a number, or a list of these; decode(parts, shape, options) returns the gradient of that shape.
--- decode runs on other ranks and knows only the message. info: {tensor=, name=, step=, rank=, state= (as in
--- atomo.decomposition), rand= (rand(2, 3): uniform numbers, keyed by seed, step, rank and tensor)}. unbiased = true
--- claims E decode(encode(g)) = g; variance(g, options) claims E||ghat - g||^2 (absent: measured), bytes(shape,
--- options) the most bytes of encode's result. verify checks these. Option ef adds error feedback. If encode's
--- result takes as many bytes as the gradient, the entries that decode makes of it are sent.
---@param name string
---@param t {encode: function, decode: function, unbiased: boolean?, variance: function?, bytes: function?}
---@usage atomo.codec("halves_ref", {encode = function(g) return g:mul(2):int() end,
---@usage decode = function(parts, shape) return parts:float():mul(0.5):view(shape) end})
local function codec(name, t)
  check_table("codec", name, t, {"encode", "decode"}, {options = "table", summary = "string", source = "string",
    unbiased = "boolean", variance = "function", bytes = "function"})
  local entry = {name = name, summary = t.summary or "written in Lua", source = t.source or "Lua",
    unbiased = t.unbiased == true, options = option_list(nil, nil, {}, t.options or {})}
  function entry.make(text, values, key)
    local parts, label = split(entry, values)
    return new_free {name = name, text = text, label = label .. (parts.ef and " ef" or ""), seed = key.seed,
      way = key.way, ef = parts.ef, t = t, options = parts.user}
  end
  spec.register(entry)
end

return {basis = basis, decomposition = decomposition, codec = codec}
