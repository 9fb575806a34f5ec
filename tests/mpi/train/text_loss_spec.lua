-- The test loss of train_lm.lua is the mean over all predicted characters, whatever the batch size, the number of ranks
-- and the last batch's size. Bits per character follow from it.
local atomo = require "atomo"
local F, nn, world = atomo.F, atomo.nn, atomo.mpi.world

local LENGTH, WINDOWS = 4, 11

local function loader(tokens, batch, rank, size)
  return atomo.text.loader {tokens = tokens, batch = batch, length = LENGTH, rank = rank, size = size, seed = 3,
    shuffle = false}
end

describe("a text's test loss", function()
  for _, batch in ipairs {1, 2, 5} do
    it(("is the mean over characters, %d windows a batch"):format(batch), function()
      local text = atomo.text.of(("abacadbcbdcd"):rep(8):sub(1, LENGTH * WINDOWS + 1), 0)
      atomo.manual_seed(4)
      local model = nn.Embedding(text.vocab, text.vocab)
      local sum, count = 0, 0
      for b in loader(text.train, 1, 0, 1):epoch(0) do
        local each = F.cross_entropy(model(b.x), b.y, {reduction = "none"}):reshape(-1)
        for k = 1, each:numel() do sum, count = sum + each:get(k), count + 1 end
      end
      assert.equal(LENGTH * WINDOWS, count)
      local tokens = text.train
      local info = atomo.train {model = model, quiet = true, epochs = 1, schedule = function() return 0 end,
        data = {train = loader(tokens, batch, world.rank, world.size), test = loader(tokens, batch, world.rank,
          world.size)}, exchange = atomo.exchange {}, optimizer = atomo.optim.sgd {params = model:parameters(), lr = 1}}
      assert.near(sum / count, info.test_loss, 2e-6)
      assert.near(sum / count, info.loss, 2e-6)
    end)
  end
end)
