local median = require "atomo.core.median"

describe("median", function()
  it("is the middle value of an odd count, in whatever order the values are", function()
    assert.equal(4, median {4})
    assert.equal(2, median {3, 1, 2})
    assert.equal(-1, median {7, -1, -5, -1, 0})
  end)

  it("is the mean of the two middle values of an even count", function()
    assert.equal(1.5, median {2, 1})
    assert.equal(2.5, median {10, 2, 1, 3})
    assert.equal(math.huge, median {math.huge, 1, 2, math.huge})
  end)

  it("leaves the list as it was, of any length", function()
    local list = {3, 1, 2, 0}
    median(list)
    assert.same({3, 1, 2, 0}, list)
    local long = {}
    for i = 1, 20001 do long[i] = 20001 - i end
    assert.equal(10000, median(long))
  end)

  it("is nil for an empty list", function() assert.is_nil(median {}) end)
end)
