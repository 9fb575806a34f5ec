--- `atomo-lua doctor`: reports the properties of this machine and build, and what has to be fixed.
local cli = require "atomo.tools.cli"
local files = require "atomo.core.files"
local Findings = require "atomo.tools.doctor.findings"

-- The checks, in their order. Each has check(findings, state); state holds the options and results of earlier checks.
local GROUPS = {"processor", "memory", "libraries", "clock", "network", "mpi"}

local DECLARATION = {
  name = "doctor", usage = "atomo-lua doctor",
  about = "Checks this machine and build, and tells what has to be fixed. Each line begins with ok, note (works, " ..
    "but may be slow or cause trouble), skip (not checked) or fix (needs fixing). Exit code: 0, 1 if a line begins " ..
    "with fix, 2 for wrong use.",
  examples = {"atomo-lua doctor", "atomo-lua doctor --no-mpi", "TMPDIR=/scratch atomo-lua doctor"},
  options = {
    {"mpi", "flag", true, "turn off the MPI round trip, a job of two ranks under mpirun"},
    {"time-limit", "number", 30, "end the MPI round trip after X seconds", above = 0, unit = "seconds"},
  },
}

--- Runs all checks; prints a line for each finding.
---@param options {mpi: boolean, time_limit: number}
---@param say fun(line: string)
---@return integer code  1 if something needs fixing, else 0
local function run(options, say)
  local findings = Findings.new(say)
  local state = {mpi = options.mpi, time_limit = options.time_limit}
  for _, group in ipairs(GROUPS) do require("atomo.tools.doctor." .. group).check(findings, state) end
  say(("to fix: %d, notes: %d"):format(findings.fixes, findings.notes))
  return findings.fixes > 0 and 1 or 0
end

--- Runs the command with its arguments; returns the exit code.
---@param args string[]
---@return integer
return function(args) return run(cli.parse(DECLARATION, args), files.say) end
