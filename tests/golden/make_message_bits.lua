--- Writes message_bits.lua beside this file: checksums of the messages as they are now. Run it
-- after a change that is meant to change them, and say so in the commit:
--   build/atomo-lua tests/golden/make_message_bits.lua
local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../?.lua;" .. package.path
local atomo, messages = require "atomo", require "support.message_bits"

atomo.set_num_threads(1)
local out = assert(io.open(here .. "/message_bits.lua", "w"))

local function write(key, list)
  out:write("  ", key, " = {\n")
  for _, item in ipairs(list) do
    local name, what = messages.case(item)
    out:write(("    [%q] = %q,\n"):format(name, messages.of(what)))
  end
  out:write "  },\n"
end

out:write(([[
-- Written by make_message_bits.lua. A case: bytes, checksum of the messages, checksum of what they decode to; then the
-- same of the streaming form.
return {
  machine = %q,
]]):format(messages.machine()))
write("portable", messages.portable)
write("local_ones", messages.local_ones)
out:write "}\n"
out:close()
