--- Loads the cdef and libatomo, and turns a negative status of a C function into a Lua error.
-- Only Lua raises: an error thrown inside a C function that the FFI has called would crash compiled code.
local ffi = require "ffi"

local M = {ffi = ffi}

--- Returns libatomo as an FFI namespace. In build/atomo-lua it is part of the program. In a stock luajit it is looked
--- for in ATOMO_LIBRARY, where cmake --install has put it, in the build tree and on the loader's path.
local function load_library()
  if pcall(function() return ffi.C.atomo_abi end) then return ffi.C end
  local here = debug.getinfo(1, "S").source:match("^@(.*)/atomo/ffi%.lua$") or "."
  local tried = {}
  local installed, where = pcall(require, "atomo_where")     -- written by cmake --install
  for _, path in ipairs {
    os.getenv "ATOMO_LIBRARY" or "",
    installed and here .. "/" .. where or "",
    here .. "/../libatomo.so",                               -- the build tree
    "libatomo.so.0",                                         -- where only programs are run
    "atomo",
  } do
    if path ~= "" then
      local ok, lib = pcall(ffi.load, path, true)
      if ok then return lib end
      tried[#tried + 1] = path
    end
  end
  error("atomo: cannot load libatomo, tried " .. table.concat(tried, ", ") .. "; set ATOMO_LIBRARY to its path", 0)
end

if not pcall(ffi.typeof, "atomo_tensor") then ffi.cdef(require "atomo_cdef") end
local C = load_library()
M.C = C
if C.atomo_abi() ~= C.ATOMO_ABI then
  error(("atomo: libatomo has ABI %d, the Lua modules were made for %d: rebuild or reinstall"):format(
    C.atomo_abi(), C.ATOMO_ABI), 0)
end

--- Directory of this package, as debug.getinfo prints it. Stack frames in it belong to the library.
local own_dir = debug.getinfo(1, "S").source:match("^@(.*/)ffi%.lua$") or "@?"

--- Level (for error) of the first stack frame outside this package, so that misuse is reported at the caller's line.
local function caller_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 2 end
    if info.what ~= "C" and info.source:sub(2, #own_dir + 1) ~= own_dir then return level - 1 end
    level = level + 1
  end
end

--- Text that raise and check append to an error, "" or " [...]". nn.module replaces this function: its text names the
--- layer whose forward is running.
function M.context() return "" end

--- Raises text at the line of the user's code that led here.
function M.raise(text) error(text .. M.context(), caller_level()) end

--- Returns C's error text and the status's name. Call it directly after the C function that returned `status` < 0.
function M.text_of(status)
  return ("%s (%s)"):format(ffi.string(C.atomo_last_error()), ffi.string(C.atomo_status_name(status)))
end

--- Returns a status >= 0; raises atomo_last_error() for a negative one. C's text names the function and the values.
function M.check(status)
  if status >= 0 then return status end
  error(M.text_of(status) .. M.context(), caller_level())
end

local MINUS_ZERO = -1 / math.huge -- x + MINUS_ZERO is x, for every x

--- Returns element i (0-based, default 0) of a buffer that C wrote, or field i of a struct. Use it for every buffer
-- that is reused: LuaJIT delays a plain load until its value is needed, past later C calls, which overwrite the buffer
-- (`f(a) <= f(b)` would compare f(b) with itself). LuaJIT does not delay the addition below.
function M.number(buffer, i) return buffer[i or 0] + MINUS_ZERO end

return M
