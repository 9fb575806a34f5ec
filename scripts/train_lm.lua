--- Trains a language model on a text over MPI ranks, with compressed gradients, and prints a sample.
--   mpirun -n 2 build/atomo-lua scripts/train_lm.lua --text book.txt
local atomo = require "atomo"
local cli = atomo.cli
local script = require "atomo.tools.script"

local readme = (debug.getinfo(1, "S").source:match "^@(.*/)" or "./") .. "../README.md"

local opts = cli.parse {
  name = "train_lm.lua",
  about = "Trains a language model (GPT-2, a small transformer or an LSTM) on a text file, over MPI ranks. Its " ..
    "tokens are the text's bytes or those of a vocabulary.",
  examples = {
    "mpirun -n 2 build/atomo-lua scripts/train_lm.lua",
    "mpirun -n 4 build/atomo-lua scripts/train_lm.lua --text book.txt --model lstm --compress rotated:ratio=256",
    "build/atomo-lua scripts/make_vocab.lua book.txt --size 8000 -o merges.txt",
    "mpirun -n 2 build/atomo-lua scripts/train_lm.lua --text book.txt --model gpt2 --tokens merges.txt --width 256",
    "build/atomo-lua scripts/train_lm.lua --epochs 20 --sample 500",
    "mpirun -n 2 build/atomo-lua scripts/train_lm.lua --save run --save-every 500 --keep 2 --resume auto",
  },
  options = script.options({
    {"text", "string", "", "text file; if absent: README.md of this program", metavar = "FILE"},
    {"tokens", "string", "bytes", "bytes: an id for each byte that occurs; FILE: a vocabulary, of make_vocab.lua or " ..
      "GPT-2's merges.txt", metavar = "bytes|FILE"},
    {"model", "choice", "transformer", "network; gpt2: GPT-2, its small form with --width 768 --layers 12 --heads 12",
      choices = {"gpt2", "lstm", "transformer"}},
    {"width", "int", 96, "channels of a layer", min = 1},
    {"layers", "int", 2, "transformer blocks or LSTM layers", min = 1},
    {"heads", "int", 4, "attention heads; must divide --width", min = 1},
    {"length", "int", 64, "tokens in a sequence", min = 1, unit = "tokens"},
    {"batch", "int", 8, "sequences per rank and step", min = 1, unit = "sequences"},
    {"epochs", "int", 40, "passes over the text", min = 1, unit = "epochs"},
    {"lr", "number", 3e-3, "highest learning rate of AdamW; falls by a cosine after warm-up", min = 0},
    {"warmup", "int", 10, "raise the learning rate linearly over the first N steps", min = 0, unit = "steps"},
    {"weight-decay", "number", 0.01, "weight decay of matrices; biases and norms have none", min = 0},
    {"dropout", "number", 0.1, "dropout probability", min = 0, max = 0.99},
    {"clip", "number", 1, "largest norm of the gradient; 0: no limit", min = 0},
    {"checkpoint", "flag", false, "recompute the blocks of a transformer or GPT-2 in backward: less memory, more time"},
    {"sample", "int", 200, "print N tokens written by the model at the end", min = 0, unit = "tokens"},
  }, {compress = "auto:ratio=64", eval_every = 10, unit = "sequences"}),
}

local world, say = atomo.mpi.world, script.say

--- Samples `count` tokens from the model, each from its distribution given the tokens before it.
local function write_sample(model, text, count)
  local ids = text.vocabulary and text:encode("\n"):totable() or {text.id[("\n"):byte()] or 0}
  model:eval()
  atomo.no_grad(function()
    for _ = 1, count do
      atomo.scope(function()
        local first = math.max(1, #ids - opts.length + 1)
        local x = atomo.tensor({{unpack(ids, first)}}, "i32")
        local logits = model(x):select(2, x:size(2))
        if opts.model == "gpt2" then logits = model.lm_head(logits) end
        local p = atomo.F.softmax(logits):contiguous():data()
        local u, id = math.random(), 0
        while id < text.vocab - 1 and u >= p[id] do
          u = u - p[id]
          id = id + 1
        end
        ids[#ids + 1] = id
      end)
    end
  end)
  return text:decode(ids)
end

local threads = script.begin(opts)
local text = atomo.text.open(opts.text ~= "" and opts.text or readme, nil,
  opts.tokens ~= "bytes" and atomo.text.vocabulary(opts.tokens) or nil)
local is_gpt2 = opts.model == "gpt2"
local model = require("models." .. opts.model)[opts.model] {vocab = text.vocab, width = opts.width,
  layers = opts.layers, heads = opts.heads, length = opts.length, dropout = opts.dropout, checkpoint = opts.checkpoint,
  logits = false}
local loss, accuracy
if is_gpt2 then loss, accuracy = model:objective() end

local function loader(tokens, training)
  return atomo.text.loader {tokens = tokens, batch = opts.batch, length = opts.length, rank = world.rank,
    size = world.size, seed = opts.seed, shuffle = training}
end
local train_loader, test_loader = loader(text.train, true), loader(text.test, false)
local exchange, how = script.exchange(opts)

say("%s", cli.echo(opts))
say("text: %s, %d bytes; tokens: %s, %d to train on, %d to test, %d different", text.name, text.bytes, opts.tokens,
  text.train:numel(), text.test:numel(), text.vocab)
say("model: %s, %d parameters; %s", opts.model, model:num_parameters(), how)
say("ranks: %d, threads a rank: %d", world.size, threads)
say("versions: %s", atomo.version_text())

local total, last = script.steps(opts, train_loader.steps)
local info = atomo.train(script.arguments(opts, last, {
  model = model, data = {train = train_loader, test = test_loader}, exchange = exchange, loss = loss,
  accuracy = accuracy,
  optimizer = atomo.optim.adamw {params = atomo.optim.no_decay_groups(model), lr = opts.lr,
    weight_decay = opts.weight_decay},
  schedule = atomo.schedule.cosine {lr = opts.lr, steps = total, warmup = opts.warmup},
  clip_norm = opts.clip > 0 and opts.clip or nil,
}))
if world.rank == 0 and opts.sample > 0 then
  print(("sample:%s"):format(write_sample(model, text, opts.sample)))
end
if info.test_loss then
  local tokens = text.train:numel() + text.test:numel()
  say("final test loss %.4f (%.3f bits a byte)", info.test_loss, info.test_loss / math.log(2) * tokens / text.bytes)
end
