--- `atomo-lua doctor`: the CPU, the cores that this process may use, the threads of OpenMP and OpenBLAS.
local f = require "atomo.ffi"
local precision = require "atomo.autograd.precision"
local system = require "atomo.tools.system"
local C, ffi = f.C, f.ffi

-- Flags of /proc/cpuinfo by architecture: {shown name, flag, another flag that means the same}.
local FEATURES = {
  x64 = {{"AVX2", "avx2"}, {"AVX-512", "avx512f"}, {"bf16", "avx512_bf16", "amx_bf16"}},
  arm64 = {{"NEON", "asimd"}, {"SVE", "sve"}, {"bf16", "bf16"}},
}

--- Returns the model of the CPU and a text of its vector units ("AVX2 yes, AVX-512 no, bf16 no") from the text of
--- /proc/cpuinfo, and whether the first of the units is missing.
local function describe_cpu(text, arch)
  local model = text:match "model name%s*:%s*([^\n]+)" or text:match "[Mm]odel%s*:%s*([^\n]+)" or "unknown model"
  local flags = " " .. (text:match "\n[Ff]lags%s*:%s*([^\n]+)" or text:match "\nFeatures%s*:%s*([^\n]+)" or "") .. " "
  local parts, first_missing = {}, false
  for i, feature in ipairs(FEATURES[arch] or {}) do
    local there = false
    for j = 2, #feature do there = there or flags:find(" " .. feature[j] .. " ", 1, true) ~= nil end
    parts[i] = feature[1] .. (there and " yes" or " no")
    if i == 1 then first_missing = not there end
  end
  return model, table.concat(parts, ", "), first_missing
end

local function check_cpu(findings)
  local text = system.read "/proc/cpuinfo"
  if not text then
    return findings:skip("CPU", ("no /proc/cpuinfo on %s (%s)"):format(jit.os, jit.arch))
  end
  local model, vectors, narrow = describe_cpu(text, jit.arch)
  findings:ok("CPU", model)
  if narrow then
    findings:note("vector units", vectors, "a virtual machine may hide them: give it the host's CPU model")
  else
    findings:ok("vector units", vectors)
  end
end

--- Says whether training with --precision bf16 is faster than with fp32.
local function check_precision(findings)
  local text, fast = precision.describe()
  if fast then findings:ok("precision", text) else findings:note("precision", text, "train with --precision fp32") end
end

--- Returns the CPU time per second that this process's control group allows, in cores; nil without a limit.
local function quota()
  local max, period = (system.read "/sys/fs/cgroup/cpu.max" or ""):match "^(%d+) (%d+)"
  max = max or system.number "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"
  period = period or system.number "/sys/fs/cgroup/cpu/cpu.cfs_period_us"
  max, period = tonumber(max), tonumber(period)
  return max and max > 0 and period and period > 0 and max / period or nil
end

local function check_cores(findings)
  local bound, all, limit = C.atomo_num_cores(), C.atomo_num_host_cores(), quota()
  local text = ("%d of this host's %d"):format(bound, all)
  if limit and limit < bound then
    findings:note("cores allowed", ("%s, CPU time of %.3g cores (control group)"):format(text, limit),
      ("give the ranks of this host together at most %d threads (--threads)"):format(math.max(1, math.floor(limit))))
  elseif bound < all then
    findings:note("cores allowed", text .. " (affinity)",
      "if that is not wanted: start without taskset, ask the batch system for more cores, or mpirun --bind-to none")
  else
    findings:ok("cores allowed", text)
  end
end

--- Checks an environment variable that holds a number of threads; nested: it may be a list "4,2".
local function check_variable(findings, name, nested, cores)
  local value = os.getenv(name)
  if not value then return end
  local valid = value:match "^%s*0*[1-9]%d*%s*$" or nested and value:match "^%s*0*[1-9]%d*[%s%d,]*$"
  local threads = valid and tonumber(value:match "%d+")
  local remedy = ("unset %s, or export %s=%d"):format(name, name, cores)
  if not threads then
    findings:fix(name, ("'%s', expected a whole number above 0"):format(value), remedy)
  elseif threads > cores then
    findings:fix(name, ("%d threads on %d cores: slow, because idle threads wait actively"):format(threads, cores),
      remedy)
  else
    findings:ok(name, value)
  end
end

local function check_threads(findings)
  local cores = C.atomo_num_cores()
  check_variable(findings, "OMP_NUM_THREADS", true, cores)
  check_variable(findings, "OPENBLAS_NUM_THREADS", false, cores)
  findings:ok("threads", ("%d, of OpenMP, OpenBLAS and oneDNN together"):format(C.atomo_num_threads()))
  local kernels = ffi.string(C.atomo_build_info "cpu")
  if os.getenv "OPENBLAS_CORETYPE" then
    findings:note("OpenBLAS kernels", kernels .. ", fixed by OPENBLAS_CORETYPE",
      "unset OPENBLAS_CORETYPE, unless results must have the bits of another machine")
  else
    findings:ok("OpenBLAS kernels", kernels)
  end
end

return {
  describe_cpu = describe_cpu,
  check = function(findings)
    check_cpu(findings)
    check_precision(findings)
    check_cores(findings)
    check_threads(findings)
  end,
}
