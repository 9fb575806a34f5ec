-- Modules can be required under the names that they had before they were moved into folders, and are the same objects.
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
