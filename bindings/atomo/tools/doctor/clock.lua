--- `atomo-lua doctor`: the clocks. Times are measured by the monotonic clock, files are dated by the system's.
local C = require("atomo.ffi").C
local system = require "atomo.tools.system"

local SLOW_READ = 1e-6  -- seconds; a step reads the clock some hundred times
local EARLIEST = os.time {year = 2024, month = 1, day = 1}

--- Returns the mean seconds of a reading of the monotonic clock.
local function reading_time()
  local n = 2000
  local from = C.atomo_time()
  for _ = 1, n do C.atomo_time() end
  return (C.atomo_time() - from) / n
end

return {
  check = function(findings)
    local seconds = reading_time()
    local source = (system.read "/sys/devices/system/clocksource/clocksource0/current_clocksource" or ""):match "%S+"
    local text = ("%.0f ns a reading%s"):format(seconds * 1e9, source and ", source " .. source or "")
    if seconds > SLOW_READ and source and source ~= "tsc" then
      findings:note("clock", text, "slow: boot the kernel with clocksource=tsc if the machine's TSC is stable")
    else
      findings:ok("clock", text)
    end
    local today = os.date "!%Y-%m-%d %H:%M UTC"
    if os.time() < EARLIEST then
      findings:fix("date", today, "set the clock: timedatectl set-ntp true")
    else
      findings:ok("date", today)
    end
  end,
}
