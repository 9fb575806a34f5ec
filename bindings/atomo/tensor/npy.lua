--- NumPy files: atomo.from_npy(path), atomo.from_npz(path), t:save_npy(path). Floats become f32, booleans and u8
-- become u8, other integers i32; a value that does not fit is refused.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local named = require "atomo.tensor.named_tensors"
local ffi, C = f.ffi, f.C

local M = {}
local EDTYPE, ELIMIT = -3, -9 -- status codes of atomo.h: no such dtype here; a value does not fit

local function path_of(path, what)
  if type(path) ~= "string" then
    f.raise(("%s: path is %s, expected a string"):format(what, path == nil and "missing" or "a " .. type(path)))
  end
  return path
end

--- Reads a .npy file (versions 1 to 3, C or Fortran order). Raises for a broken file and for values that do not fit.
---@param path string
---@return atomo.Tensor
---@usage atomo.ones(2):save_npy "ones.npy" atomo.from_npy "ones.npy"
function M.from_npy(path)
  local out = T.out()
  f.check(C.atomo_npy_read(path_of(path, "from_npy"), out))
  return T.wrap(out[0])
end

--- Lists the members of an open archive: {name = file name without .npy, index =}.
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

--- Returns the tensor of a member, or nil and the reason why it cannot be one.
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

--- Reads the arrays of a .npz file: {name = tensor}. An array that cannot be a tensor (complex numbers, text, 64-bit
--- integers beyond i32, ...) is left out: `unread` has the reason, and indexing `tensors` with its name raises it.
--- Raises if opts.only names such an array, or if no array can be read.
---@param path string
---@param opts {only: string[]|string}?   only these arrays are read
---@return table<string, atomo.Tensor> tensors
---@return table<string, string> unread  name -> reason
---@usage pcall(atomo.from_npz, "missing.npz") --> false
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

--- Writes the tensor as .npy to a temporary file that then replaces `path`, so that `path` never has a partial file.
---@param path string
---@return atomo.Tensor self
---@usage t:save_npy "t.npy"
function T.Tensor:save_npy(path)
  T.self_handle(self)
  f.check(C.atomo_npy_write(self.h, path_of(path, "save_npy")))
  return self
end

return M
