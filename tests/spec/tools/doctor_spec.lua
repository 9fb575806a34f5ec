-- `atomo-lua doctor` with planted faults: environment, PATH, a false mpirun.
-- test: slow
local spawn = require "support.spawn"
local with_file = require "support.shell".write

local spec = spawn.specs(it, pending)

local function has(text, want)
  assert(text:find(want, 1, true), ("expected %q in:\n%s"):format(want, text))
end

--- Runs the doctor with these settings of the environment ("A=1 B=2").
local function doctor(env, args, opts)
  return spawn.run(("env %s %s doctor %s"):format(env, spawn.quote(spawn.exe), args or "--no-mpi"), opts)
end

--- Returns level, text and remedy of the finding of that name.
local function finding(out, name)
  local pattern = "\n(%l+)%s+" .. name:gsub("%p", "%%%0") .. "%s%s+([^\n]*)\n(%s*%-?>?[^\n]*)"
  local level, text, below = ("\n" .. out):match(pattern)
  assert(level, ("no finding %s in:\n%s"):format(name, out))
  return level, text, below:match "^%s+%-> (.*)"
end

--- Checks that the finding needs fixing, with these words in its text and its remedy, and that the exit code is 1.
local function assert_fix(out, code, name, words, remedy)
  local level, text, below = finding(out, name)
  assert.equal("fix", level)
  has(text, words)
  has(below or "", remedy)
  assert.equal(1, code)
end

--- Calls fn with a folder that has links to the programs which the doctor starts, except mpirun; removes it.
local function with_programs(fn)
  local folder = os.tmpname()
  os.remove(folder)
  local programs = "sh env timeout df getent uname git sleep"
  os.execute(("mkdir %s && for p in %s; do ln -s \"$(command -v $p)\" %s/ 2>/dev/null; done"):format(folder, programs,
    folder))
  local ok, why = pcall(fn, folder)
  os.execute("rm -r " .. folder)
  if not ok then error(why, 0) end
end

--- Calls fn with a folder whose mpirun is this shell script after an answer to --version.
local function with_mpirun(version, script, fn)
  with_programs(function(folder)
    with_file(folder .. "/mpirun", ("#!/bin/sh\nif [ \"$1\" = --version ]; then echo '%s'; exit; fi\n%s\n"):format(
      version, script))
    os.execute("chmod +x " .. folder .. "/mpirun")
    fn(folder)
  end)
end

local function open_mpi()
  local f = require "atomo.ffi"
  return "mpirun (Open MPI) " .. f.ffi.string(f.C.atomo_build_info "mpi"):match "[%d.]+"
end

describe("atomo-lua doctor", function()
  spec("has a line for each finding, and counts those to fix in its last line and exit code", function()
    local out, code = doctor ""
    for _, name in ipairs {"cores allowed", "threads", "OpenBLAS", "MPI library", "build", "clock", "interface lo"} do
      finding(out, name)
    end
    local fixes = select(2, ("\n" .. out):gsub("\nfix ", ""))
    has(out, ("\nto fix: %d, notes: "):format(fixes))
    assert.equal(fixes > 0 and 1 or 0, code)
    assert.equal("skip", (finding(out, "MPI round trip")))
  end)

  spec("finds numbers of threads that are none, or too many", function()
    for _, value in ipairs {"many", "0", "-2", "4,x", "1.5", ""} do
      local out, code = doctor(("OMP_NUM_THREADS='%s'"):format(value))
      assert_fix(out, code, "OMP_NUM_THREADS", ("'%s', expected a whole number above 0"):format(value),
        "unset OMP_NUM_THREADS")
    end
    local out, code = doctor "OPENBLAS_NUM_THREADS=99999"
    assert_fix(out, code, "OPENBLAS_NUM_THREADS", "99999 threads on ", "export OPENBLAS_NUM_THREADS=")
    assert.equal("ok", (finding(doctor "OMP_NUM_THREADS=1,1", "OMP_NUM_THREADS")))
  end)

  spec("finds a TMPDIR that no file can be written in, and starts no job then", function()
    local path, remove = spawn.file ""
    for _, folder in ipairs {"/proc/none", path} do
      local out, code = doctor("TMPDIR=" .. folder, "")
      assert_fix(out, code, "TMPDIR", "no file can be written in " .. folder, "unset TMPDIR")
      local level, why = finding(out, "MPI round trip")
      assert.equal("skip", level)
      has(why, spawn.have "mpirun" and "no temporary files" or "mpirun")
    end
    remove()
  end)

  spec("notes a long TMPDIR, and leaves no file in it", function()
    with_programs(function(folder)
      local long = folder .. "/" .. ("x"):rep(70)
      os.execute("mkdir " .. long)
      local level, text = finding(doctor("TMPDIR=" .. long), "TMPDIR")
      assert.equal("note", level)
      has(text, ("%d bytes"):format(#long))
      assert.equal(0, os.execute("rmdir " .. long)) -- only an empty folder can be removed
    end)
  end)

  spec("finds that mpirun is not in PATH", function()
    with_programs(function(folder)
      local out, code = doctor("PATH=" .. folder, "")
      assert_fix(out, code, "mpirun", "not in PATH", "apt install openmpi-bin")
      assert.equal("skip", (finding(out, "MPI round trip")))
    end)
  end)

  spec("finds an mpirun of another version, one that fails and one that hangs", function()
    with_mpirun("mpirun (Open MPI) 1.6.5", "exit 1", function(folder)
      local out, code = doctor("PATH=" .. folder, "")
      assert_fix(out, code, "mpirun", "1.6.5; the library is ", "first in PATH")
    end)
    with_mpirun(open_mpi(), "echo -----; echo 'no slots here' >&2; exit 3", function(folder)
      local out, code = doctor("PATH=" .. folder, "")
      assert_fix(out, code, "MPI round trip", "code 3: no slots here", "docs/install.md")
    end)
    with_mpirun(open_mpi(), "sleep 60", function(folder)
      local out, code, seconds = doctor("PATH=" .. folder, "--time-limit 0.2")
      assert_fix(out, code, "MPI round trip", "no result after 0.2 s", "OMPI_MCA_btl_tcp_if_include")
      assert(seconds < 30, ("took %g s"):format(seconds))
    end)
  end)

  spec("times an all-reduce of two ranks", function()
    local out = doctor("", "", {timeout = 40})
    local level, text = finding(out, "MPI round trip")
    assert.equal("ok", level, out)
    assert.matches("^all%-reduce of 2 ranks on this host in [%d.]+ us$", text)
  end, true)

  spec("is refused under mpirun", function()
    local out, code = spawn.ranks(1, "doctor")
    has(out, "atomo-lua doctor: start it without mpirun")
    assert.equal(1, code)
  end, true)

  spec("has --help, and refuses unknown options", function()
    local out, code = spawn.host "doctor --help"
    has(out, "usage: atomo-lua doctor [options]")
    has(out, "--time-limit X")
    assert.equal(0, code)
    out, code = spawn.host "doctor --time-limt 3"
    has(out, "doctor: unknown option --time-limt, did you mean --time-limit?")
    assert.equal(2, code)
  end)

  spec("is a command; after -- it is a file", function()
    with_programs(function(folder)
      with_file(folder .. "/doctor", "print 'a file'")
      local out = spawn.run(("sh -c 'cd %s && %s -- doctor'"):format(folder, spawn.exe))
      assert.equal("a file\n", out)
    end)
  end)
end)

describe("doctor's readers", function()
  it("describe the CPU from /proc/cpuinfo", function()
    local describe_cpu = require("atomo.tools.doctor.processor").describe_cpu
    local model, vectors, narrow = describe_cpu("cpu: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx avx2\n", "x64")
    assert.same({"Some CPU", "AVX2 yes, AVX-512 no, bf16 no", false}, {model, vectors, narrow})
    model, vectors, narrow = describe_cpu("model name\t: Old\nflags\t\t: fpu avx\n", "x64")
    assert.same({"Old", "AVX2 no, AVX-512 no, bf16 no", true}, {model, vectors, narrow})
    model, vectors = describe_cpu("processor : 0\nFeatures\t: fp asimd bf16\n", "arm64")
    assert.same({"unknown model", "NEON yes, SVE no, bf16 yes"}, {model, vectors})
  end)

  it("know bridges and versions by their names", function()
    local is_bridge, version = require("atomo.tools.doctor.network").is_bridge,
      require("atomo.tools.doctor.mpi").version
    for _, name in ipairs {"docker0", "virbr0", "br-1f2e", "veth12"} do assert.is_true(is_bridge(name)) end
    for _, name in ipairs {"eth0", "enp3s0", "ib0", "bond0", "lo"} do assert.is_false(is_bridge(name)) end
    assert.equal("4.1", version "mpirun (Open MPI) 4.1.4")
    assert.equal("5.0", version "Open MPI v5.0.3")
    assert.is_nil(version "HYDRA build details: Version: 4.0.2")
  end)

  it("list this host's interfaces", function()
    for _, item in ipairs(require "atomo.tools.doctor.interfaces"()) do
      assert(#item.addresses > 0)
      if item.loopback then has(table.concat(item.addresses, " "), "1") end
    end
  end)
end)
