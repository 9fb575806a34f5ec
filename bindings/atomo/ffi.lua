--- The one door to C: loads the cdef and the library, and turns a negative status into a Lua error.
-- Only Lua raises (a Lua error inside C that was called through the FFI would crash compiled code).
local ffi = require "ffi"

local M = {ffi = ffi}

--- Libatomo is in the process already (the host program), named by ATOMO_LIBRARY, beside the modules, or on the
--- loader's path (a stock luajit).
local function load_library()
  if pcall(function() return ffi.C.atomo_abi end) then return ffi.C end
  local here = debug.getinfo(1, "S").source:match("^@(.*)/atomo/ffi%.lua$") or "."
  local tried = {}
  local installed, where = pcall(require, "atomo_where")     -- written by cmake --install
  for _, path in ipairs {
    os.getenv "ATOMO_LIBRARY" or "",
    installed and here .. "/" .. where or "",
    here .. "/../libatomo.so",                               -- the build tree
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

--- The directory that holds the package atomo: frames in it are ours, errors are raised at the first that is not.
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

--- What was going on, for error texts: nn.module says in which layer. "" or " [...]".
function M.context() return "" end

--- Raises text at the line of the user's code that led here.
function M.raise(text) error(text .. M.context(), caller_level()) end

--- The words for a negative status that was just returned.
function M.text_of(status)
  return ("%s (%s)"):format(ffi.string(C.atomo_last_error()), ffi.string(C.atomo_status_name(status)))
end

--- Returns a status >= 0; raises atomo_last_error() for a negative one. C's text names the function and the values.
function M.check(status)
  if status >= 0 then return status end
  error(M.text_of(status) .. M.context(), caller_level())
end

local MINUS_ZERO = -1 / math.huge -- x + MINUS_ZERO is x, for every x

--- The number that C has put in place i (0-based; 0 unless given) of a buffer, or in field i of a struct. Numbers that
-- C writes into a buffer that is used again are read through this: LuaJIT moves a plain load into the comparison or
-- the sum that uses its value, past the C calls in between, and then finds what the next call has put there
-- (`f(a) <= f(b)` compares f(b) with itself). An addition takes place where it stands.
function M.number(buffer, i) return buffer[i or 0] + MINUS_ZERO end

return M
