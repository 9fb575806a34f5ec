--- `atomo-lua doctor`: the libraries that the runtime uses, and this build of it.
local f = require "atomo.ffi"
local system = require "atomo.tools.system"
local C, ffi = f.C, f.ffi

local function info(key)
  local text = ffi.string(C.atomo_build_info(key))
  return text ~= "none" and text or nil
end

-- Optional libraries: {name, key of atomo_build_info, feature that is missing without it, remedy}.
local REBUILD = "apt install %s, then build again"
local OPTIONAL = {
  {"FFTW", "fftw", "fourier, dct and rfft do not work", "apt install libfftw3-single3 (a build with ATOMO_FFTW=ON)"},
  {"oneDNN", "onednn", "some convolutions are slower", REBUILD:format "libdnnl-dev"},
  {"libpng", "png", "PNG images cannot be read", REBUILD:format "libpng-dev"},
  {"libjpeg", "jpeg", "JPEG images cannot be read", REBUILD:format "libjpeg-dev"},
}

local function check_lua(findings)
  if jit.status() then
    findings:ok("LuaJIT", jit.version)
  else
    findings:note("LuaJIT", jit.version .. ", its compiler is off: Lua code is slow", "do not use -joff")
  end
end

local function check_blas(findings)
  local text = info "blas"
  if not text then
    findings:fix("OpenBLAS", "cannot be loaded: most operators do not work", "apt install libopenblas0-openmp")
  elseif not text:find("USE_OPENMP", 1, true) then
    findings:fix("OpenBLAS", text .. ": its threads and OpenMP's compete for the cores",
      "apt install libopenblas0-openmp, and choose it by update-alternatives")
  else
    findings:ok("OpenBLAS", (text:gsub("^OpenBLAS ", "")))
  end
end

local function check_build(findings)
  local text = info "build"
  findings:ok("compiler", info "compiler")
  local slow = text:find("not optimised", 1, true) or text:find("assertions on", 1, true) or
    not text:find("no sanitizer", 1, true)
  if slow then
    findings:note("build", text, "slow; to train: cmake --preset release && cmake --build build")
  else
    findings:ok("build", text)
  end
end

--- Names the commit of the source tree that the modules lie in. The program may have been built from another one.
local function check_sources(findings)
  local folder = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
  if not system.find "git" then return findings:skip("source tree", "git is missing") end
  local out, code = system.run(("git -C %s describe --always --dirty"):format(system.quote(folder)))
  if code ~= 0 then return findings:skip("source tree", "the modules are not in a git repository") end
  findings:ok("source tree", "commit " .. out:match "[^\n]*")
end

return {
  check = function(findings)
    check_lua(findings)
    findings:ok("MPI library", info "mpi")
    check_blas(findings)
    for _, library in ipairs(OPTIONAL) do
      local name, key, lack, remedy = unpack(library)
      local text = info(key)
      if text then findings:ok(name, (text:gsub("^fftw%-", ""))) else findings:note(name, "none: " .. lack, remedy) end
    end
    check_build(findings)
    check_sources(findings)
  end,
}
