--- PyTorch's files of tensors (torch.save of a state_dict, .pt and .pth, since PyTorch 1.6): a zip archive of a pickle,
-- which describes the tensors, and of one entry per storage with their bytes. The pickle is read without executing
-- anything (pickle.lua).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local encode = require("atomo.core.little_endian").encode
local pickle = require "atomo.nn.torch.pickle"
local zip = require "atomo.nn.torch.zip"
local C, refuse = f.C, zip.refuse

local M = {}
local ELIMIT = -9 -- status code of atomo.h: a value does not fit

--- Class of a storage -> bytes of an element, its kind in C.
local storages = {
  ["torch FloatStorage"] = {4, C.ATOMO_F32}, ["torch DoubleStorage"] = {8, C.ATOMO_RAW_F64},
  ["torch HalfStorage"] = {2, C.ATOMO_RAW_F16}, ["torch BFloat16Storage"] = {2, C.ATOMO_RAW_BF16},
  ["torch LongStorage"] = {8, C.ATOMO_RAW_I64}, ["torch IntStorage"] = {4, C.ATOMO_I32},
  ["torch ShortStorage"] = {2, C.ATOMO_RAW_I16}, ["torch CharStorage"] = {1, C.ATOMO_RAW_I8},
  ["torch ByteStorage"] = {1, C.ATOMO_U8}, ["torch BoolStorage"] = {1, C.ATOMO_RAW_BOOL},
}

local function whole(v) return type(v) == "number" and v % 1 == 0 and v >= 0 and v <= 2 ^ 53 end

--- Returns the elements of a tuple of whole numbers; nil for any other value.
local function numbers(t)
  if type(t) ~= "table" or t.kind ~= "tuple" then return nil end
  local list = {}
  for i = 1, t.n do
    if not whole(t[i]) then return nil end
    list[i] = t[i]
  end
  return list
end

-- ---- what the pickle describes -------------------------------------------------------------------------------------

---@class atomo.torch.Spec   a tensor in a file
---@field key string         of its storage
---@field kind integer       of its elements in C
---@field bytes integer      of an element
---@field count number       elements of the storage
---@field offset number      of the first element, in elements
---@field size integer[]
---@field stride integer[]

--- Returns a text if PyTorch 2 stores the negative or the conjugate of a tensor (its metadata have neg or conj), else
--- nil.
local function flag_of(metadata)
  if type(metadata) ~= "table" or metadata.kind ~= "dict" then return nil end
  for _, key in ipairs {"neg", "conj"} do
    if pickle.get(metadata, key) then
      return ("its file holds it with the flag '%s': in Python, save t.resolve_%s()"):format(key, key)
    end
  end
end

--- Returns the description of a tensor; nil for an object that is no tensor, and nil and a reason for a tensor that
--- cannot be read.
local function spec_of(v)
  if type(v) ~= "table" or v.kind ~= "object" then return nil end
  if v.class == "torch._utils _rebuild_parameter" then return spec_of(v.args[1]) end
  if v.class ~= "torch._utils _rebuild_tensor_v2" then
    return nil, v.class:find "^torch%._utils _rebuild" and "it is made by " .. v.class or nil
  end
  local storage, size, stride = v.args[1], numbers(v.args[3]), numbers(v.args[4])
  local id = type(storage) == "table" and storage.kind == "persistent" and storage.id
  if type(id) ~= "table" or id[1] ~= "storage" or type(id[2]) ~= "table" or type(id[3]) ~= "string" or
    not whole(id[5]) or not whole(v.args[2]) or not size or not stride or #size ~= #stride then
    return nil, "its description is damaged"
  end
  local kind = storages[id[2].name]
  if not kind then return nil, "it is of " .. tostring(id[2].name) .. ", which is not read" end
  local flag = flag_of(v.args[7])
  if flag then return nil, flag end
  return {key = id[3], kind = kind[2], bytes = kind[1], count = id[5], offset = v.args[2], size = size, stride = stride}
end

--- Adds the tensors of a dictionary to list, in their order.
local function collect(path, dict, list)
  for i, name in ipairs(dict.keys) do
    local spec, why = spec_of(dict.values[i])
    if why then refuse(path, "'%s' cannot be read: %s", brief(name), why) end
    if spec and type(name) == "string" then list[#list + 1] = {name = name, spec = spec} end
  end
end

--- Keys under which training scripts keep the state_dict of their model.
local keys = {"state_dict", "model_state_dict", "model", "net", "module", "weights"}

--- Returns the tensors of the file's state_dict in their order: those at its top, or under one of `keys`.
local function tensors_of(path, top)
  if type(top) ~= "table" or top.kind ~= "dict" then
    if type(top) == "table" and top.kind == "object" and top.class:find "^torch%._utils" == nil then
      refuse(path, "it holds a %s, not a state_dict: in Python, torch.save(model.state_dict(), path)",
        top.class:match "%S+$")
    end
    refuse(path, "it holds no state_dict: expected a dictionary of tensors")
  end
  local list = {}
  collect(path, top, list)
  for _, key in ipairs(keys) do
    local inner = #list == 0 and pickle.get(top, key)
    if type(inner) == "table" and inner.kind == "dict" then collect(path, inner, list) end
  end
  if #list == 0 then refuse(path, "it holds no tensors, neither at its top nor under %s", table.concat(keys, ", ")) end
  return list
end

--- Returns the archive's entries, and the folder that they are in ("archive/").
local function open(path)
  local file, why = io.open(path, "rb")
  if not file then f.raise("torch: " .. why) end
  local head = file:read(4)
  file:close()
  if head == "PK\3\4" then
    local entries = zip.entries(path)
    for name in pairs(entries) do
      local folder = name:match "^(.-)data%.pkl$"
      if folder then
        if entries[folder .. "constants.pkl"] then
          refuse(path, "it is a TorchScript program, not a state_dict: in Python, torch.save(model.state_dict(), path)")
        end
        return entries, folder
      end
    end
    refuse(path, "it is a zip archive without data.pkl: not a file of torch.save")
  elseif head and head:find "^\128[\2-\5]" then
    refuse(path, "it is in the format before PyTorch 1.6; in Python, torch.save(torch.load(path), path) converts it")
  end
  refuse(path, "it is no file of torch.save: expected a zip archive")
end

---@class atomo.torch.File
---@field path string
---@field tensors {name: string, spec: atomo.torch.Spec}[]  in their order in the file

--- Opens a file and reads the list of its tensors.
---@param path string
---@return atomo.torch.File
function M.open(path)
  local entries, folder = open(path)
  local text = zip.read(path, folder .. "data.pkl", entries[folder .. "data.pkl"])
  local order = entries[folder .. "byteorder"]
  if order and zip.read(path, folder .. "byteorder", order):bytes() ~= "little" then
    refuse(path, "its numbers are big-endian, which is not read")
  end
  local top, why = pickle.read(text:bytes())
  if why then refuse(path, "data.pkl is no pickle that can be read: %s", why) end
  return {path = path, entries = entries, folder = folder, tensors = tensors_of(path, top), storages = {}}
end

-- ---- tensors -----------------------------------------------------------------------------------------------------

--- Returns the elements of a storage as a tensor of one dimension.
local function storage_of(file, name, spec)
  local known = file.storages[spec.key]
  if known and known.kind == spec.kind then return known.tensor end
  local entry_name = file.folder .. "data/" .. spec.key
  local entry = file.entries[entry_name]
  if not entry then refuse(file.path, "'%s' has its elements in '%s', which is not there", name, entry_name) end
  if entry.size ~= spec.count * spec.bytes then
    refuse(file.path, "'%s' has %.0f bytes, %.0f elements of %d bytes are expected", entry_name, entry.size, spec.count,
      spec.bytes)
  end
  local raw, out = zip.read(file.path, entry_name, entry), T.out()
  local status = C.atomo_raw_convert(spec.kind, raw.h, 1, f.ffi.new("double[1]", spec.count), out)
  if status == ELIMIT then
    refuse(file.path, "'%s': %s", name, (f.ffi.string(C.atomo_last_error()):gsub("^raw_convert: ", "")))
  end
  f.check(status)
  raw:free()
  file.storages[spec.key] = {kind = spec.kind, tensor = T.wrap(out[0])}
  return file.storages[spec.key].tensor
end

--- Copies n-dimensional elements that lie `stride` apart to `to`, in row-major order; returns the next position.
local function gather(to, at, from, offset, size, stride, dim)
  if dim > #size then
    to[at] = from[offset]
    return at + 1
  end
  local step = stride[dim]
  if dim == #size then
    for i = 0, size[dim] - 1 do to[at + i] = from[offset + i * step] end
    return at + size[dim]
  end
  for i = 0, size[dim] - 1 do at = gather(to, at, from, offset + i * step, size, stride, dim + 1) end
  return at
end

local function check_extent(file, name, spec)
  local last, n = spec.offset, 1
  for d, size in ipairs(spec.size) do
    n = n * size
    last = last + (size - 1) * spec.stride[d]
  end
  if #spec.size > C.ATOMO_MAX_DIM then
    refuse(file.path, "'%s' has %d dimensions, at most %d", name, #spec.size, C.ATOMO_MAX_DIM)
  end
  if n > 0 and last >= spec.count then
    refuse(file.path, "'%s' %s reaches element %.0f of a storage of %.0f", name, T.shape_text(spec.size), last + 1,
      spec.count)
  end
  return n
end

--- Returns a tensor of the file, a copy: floats as f32, booleans and u8 as u8, other integers as i32.
---@param file atomo.torch.File
---@param entry {name: string, spec: atomo.torch.Spec}
---@return atomo.Tensor
function M.tensor(file, entry)
  local spec = entry.spec
  local n = check_extent(file, entry.name, spec)
  if n == 0 then
    return T.empty(spec.size, spec.kind == C.ATOMO_U8 and "u8" or "f32")
  end
  local storage = storage_of(file, entry.name, spec)
  local out = T.empty(spec.size, storage:dtype())
  gather(out:data(), 0, storage:data(), spec.offset, spec.size, spec.stride, 1)
  return out
end

-- ---- writing -----------------------------------------------------------------------------------------------------

local function number(v)
  if v < 256 then return "K" .. encode(1, v) end
  if v < 2 ^ 31 then return "J" .. encode(4, v) end
  return "\138\8" .. encode(8, v)
end

local function text(s) return "X" .. encode(4, #s) .. s end

local function tuple(list)
  for i, v in ipairs(list) do list[i] = number(v) end
  return "(" .. table.concat(list) .. "t"
end

--- Returns the pickle of one tensor: the arguments of _rebuild_tensor_v2. class: the class of its storage.
local function tensor_pickle(key, class, shape)
  local stride, n, size = {}, 1, {}
  for d = #shape, 1, -1 do
    stride[d], size[d] = n, shape[d]
    n = n * shape[d]
  end
  return "ctorch._utils\n_rebuild_tensor_v2\n((" .. text "storage" .. "ctorch\n" .. class .. "\n" .. text(key) ..
    text "cpu" .. number(n) .. "tQ" .. number(0) .. tuple(size) .. tuple(stride) ..
    "\137ccollections\nOrderedDict\n)RtR"
end

local classes = {f32 = "FloatStorage", i32 = "IntStorage", u8 = "ByteStorage", f16 = "HalfStorage",
  bf16 = "BFloat16Storage"}

--- Writes a state_dict. entries: in the order of the file, {name=, tensor=}, or {name=, count=} for a scalar i64. A
--- tensor with several names is written once.
---@param path string
---@param entries {name: string, tensor: atomo.Tensor?, count: number?}[]
function M.write(path, entries)
  local items, parts, key_of = {}, {}, {}
  for _, e in ipairs(entries) do
    local key = e.tensor and key_of[e.tensor]
    if not key then
      key = tostring(#parts)
      parts[#parts + 1] = {name = "archive/data/" .. key, contents = e.tensor or encode(8, e.count)}
      if e.tensor then key_of[e.tensor] = key end
    end
    items[#items + 1] = text(e.name) .. tensor_pickle(key, e.tensor and classes[e.tensor:dtype()] or "LongStorage",
      e.tensor and e.tensor:shape() or {})
  end
  local data = "\128\2ccollections\nOrderedDict\n)R(" .. table.concat(items) .. "u."
  local archive = {{name = "archive/data.pkl", contents = data}}
  for _, part in ipairs(parts) do archive[#archive + 1] = part end
  archive[#archive + 1] = {name = "archive/version", contents = "3\n"}
  zip.write(path, archive)
end

return M
