--- NumPy files: atomo.from_npy(path), atomo.from_npz(path), t:save_npy(path). Floats become f32, booleans
-- u8, integers but u8 i32; a value that does not fit is refused.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local named = require "atomo.tensor.named_tensors"
local ffi, C = f.ffi, f.C

local M = {}
local EDTYPE, ELIMIT = -3, -9 -- of atomo.h: no tensor holds such elements; a value does not fit

local function path_of(path, what)
  if type(path) ~= "string" then
    f.raise(("%s: path is %s, expected a string"):format(what, path == nil and "missing" or "a " .. type(path)))
  end
  return path
end

--- Reads a .npy file (versions 1 to 3, C or Fortran order).
---@param path string
---@return atomo.Tensor
function M.from_npy(path)
  local out = T.out()
  f.check(C.atomo_npy_read(path_of(path, "from_npy"), out))
  return T.wrap(out[0])
end

--- The members of an open archive: {name = without .npy, index =}.
local function members_of(z, path)
  local entries, known = {}, {}
  for i = 0, C.atomo_npz_count(z) - 1 do
    local member = ffi.string(C.atomo_npz_name(z, i))
    local name = member:match "^(.+)%.npy$" or member
    if known[name] then named.refuse("npz", path, "two members are '%s' (%s, %s)", name, known[name], member) end
    known[name] = member
    entries[#entries + 1] = {name = name, member = member, index = i}
  end
  return entries
end

--- The tensor of a member, or nil and why it is none here.
local function read_member(z, path, e)
  local out = T.out()
  local status = C.atomo_npz_read(z, e.index, out)
  if status == EDTYPE or status == ELIMIT then
    local place = ("npy: %s: '%s'"):format(path, e.member)
    local text = ffi.string(C.atomo_last_error())
    return nil, text:sub(1, #place) == place and text:sub(#place + 1):match "^:? ?(.*)$" or text
  end
  f.check(status)
  return T.wrap(out[0])
end

--- Reads the arrays of a .npz file by name: {name = tensor}. A member that no tensor can hold (complex numbers, texts,
--- an i8 beyond i32, ...) is left out: the second result says why by its name, as does the error of asking the first
--- for it. A file that holds nothing else is refused, as is such a member that opts.only names.
---@param path string
---@param opts {only: string[]|string}?   only these arrays are read
---@return table<string, atomo.Tensor> tensors
---@return table<string, string> unread
function M.from_npz(path, opts)
  local out = ffi.new "atomo_npz *[1]"
  f.check(C.atomo_npz_open(path_of(path, "from_npz"), out))
  local z = ffi.gc(out[0], C.atomo_npz_close)
  local tensors, unread = named.read("npz", path, members_of(z, path), opts, function(e)
    return read_member(z, path, e)
  end)
  C.atomo_npz_close(ffi.gc(z, nil))
  return tensors, unread
end

--- Writes the tensor as .npy, by way of a temporary file, so that path has either the old file or the whole new one.
---@param path string
---@return atomo.Tensor self
function T.Tensor:save_npy(path)
  f.check(C.atomo_npy_write(self.h, path_of(path, "save_npy")))
  return self
end

return M
