-- The tensors of a batch end with it, for each kind of loader: none shows the data of a later batch, in forward or in
-- backward, and nothing set on one stays for the next.
local atomo = require "atomo"
local fails = require "support.fails"
local data = atomo.data

local ended = "was freed when the loader made the next batch; to use it longer, keep a :clone() of it"
local own = {size = function() return 6 end, get = function(_, i) return atomo.full({2}, i), i end}
local loaders = {
  tensors = function() return data.tensors {x = atomo.arange(12):view(6, 2), y = atomo.arange(6):int(), batch = 2} end,
  set = function() return data.loader {set = own, batch = 2} end,
  images = function() return data.loader {set = data.synthetic({train = 6, test = 6}).train, batch = 2} end,
  images_in_turn = function()
    return data.loader {set = data.synthetic({train = 6, test = 6}).train, batch = 2, background = false}
  end,
}

for name, new in pairs(loaders) do
  describe("a batch of " .. name, function()
    it("that is kept raises when it is used", function()
      local kept, values = {}, {}
      for batch in new():epoch(0) do
        kept[#kept + 1], values[#values + 1] = batch, batch.x:clone()
      end
      for i = 1, 2 do
        assert.same({i, 3, 2, 2}, {kept[i].index, kept[i].steps, kept[i].n, kept[i].total})
        fails(ended, function() return kept[i].x:sum() end)
        fails(ended, function() return kept[i].y:numel() end)
      end
      assert.same(values[3]:totable(), kept[3].x:totable())
      assert.is_true(values[1]:bytes() ~= values[3]:bytes())
    end)

    it("whose graph outlives it raises in backward, and a clone's does not", function()
      for _, part in ipairs {
        function(x) return x end, function(x) return x:view(x:numel()) end, function(x) return x:detach() end,
      } do
        local w, total = atomo.param {2}, 0
        for batch in new():epoch(0) do total = total + (part(batch.x) * w):sum() end
        assert.is_false(pcall(total.backward, total))
      end
      local w, total, expected = atomo.param {2}, 0, 0
      for batch in new():epoch(0) do
        total, expected = total + (batch.x:clone() * w):sum(), expected + batch.x:sum():item()
      end
      total:backward()
      assert.is_near(expected, w.grad:item(), 1e-3 * math.abs(expected) + 1e-3)
    end)

    it("gives its input a gradient of its own", function()
      for batch in new():epoch(0) do
        assert.is_nil(batch.x.requires_grad)
        assert.is_nil(batch.x.grad)
        batch.x:requires_grad_()
        ;(batch.x * 3):sum():backward()
        assert.equal(3, batch.x.grad:max():item())
      end
    end)

    it("may be freed by the user", function()
      local loader, n = new(), 0
      for e = 0, 1 do
        for batch in loader:epoch(e) do
          n = n + batch.x:size(1)
          batch.x:free()
        end
      end
      assert.equal(12, n)
    end)

    it("needs an epoch", function()
      fails("epoch is missing, expected a whole number", function() new():epoch() end)
    end)
  end)
end

it("a batch of text ends with the next one, too", function()
  local loader = atomo.text.loader {tokens = atomo.arange(13):int(), batch = 1, length = 3, shuffle = false}
  local kept = {}
  for batch in loader:epoch(0) do kept[#kept + 1] = batch end
  assert.same({{9, 10, 11}}, kept[4].x:totable())
  fails(ended, function() return kept[3].x:totable() end)
  fails("text.loader: first step is 6, expected a whole number from 1 to 5", function() loader:epoch(0, 6) end)
  fails("text.loader: epoch is missing", function() loader:epoch() end)
end)
