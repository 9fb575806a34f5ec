-- Modules answer to the names under which they were required before they stood in rooms, and are the same ones.
local rooms = require "atomo.core.names"

describe("the names of modules", function()
  for room, names in pairs(rooms) do
    for name in names:gmatch "%S+" do
      it(("atomo.%s is atomo.%s.%s"):format(name, room, name), function()
        assert.equal(require(("atomo.%s.%s"):format(room, name)), require("atomo." .. name))
      end)
    end
  end
end)
