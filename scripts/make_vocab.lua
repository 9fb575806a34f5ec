--- Learns a vocabulary for train_lm.lua from a text: byte-pair encoding, in the format of GPT-2's merges.txt.
--   build/atomo-lua scripts/make_vocab.lua book.txt --size 8000 -o merges.txt
local atomo = require "atomo"
local files = require "atomo.core.files"

local opts = atomo.cli.parse {
  name = "make_vocab.lua",
  about = "Learns a byte-pair encoding from texts: the 256 bytes, tokens made by merging the pair that occurs most " ..
    "often, and <|endoftext|>. Writes GPT-2's merges.txt. The same texts give the same file.",
  examples = {
    "build/atomo-lua scripts/make_vocab.lua book.txt --size 8000 -o merges.txt",
    "mpirun -n 2 build/atomo-lua scripts/train_lm.lua --text book.txt --model gpt2 --tokens merges.txt",
  },
  options = {
    {"size", "int", 8000, "number of tokens; fewer if no further pair occurs twice", min = 257, max = 2 ^ 20,
      unit = "tokens"},
    {"output", "string", nil, "file to write; if the program is stopped, the file stays as it was",
      metavar = "FILE", alias = {"o"}, required = true},
  },
  positional = {{"text", "string", nil, "text files", required = true, repeated = true, metavar = "TEXT"}},
}

local parts = {}
for i, path in ipairs(opts.text) do
  local file, problem = io.open(path, "rb")
  local bytes, why
  if file then
    bytes, why = file:read "*a"
    file:close()
  end
  if not bytes then error(("make_vocab.lua: %s"):format(problem or path .. ": " .. why), 0) end
  parts[i] = bytes
end

local bytes = table.concat(parts, "\n")
local vocabulary = atomo.text.train_vocabulary(bytes, opts.size)
vocabulary:save(opts.output)
local count = vocabulary:encode(bytes):numel()
files.say(("%s: %d tokens, %d merges; the text's %d bytes are %d tokens (%.2f bytes a token)"):format(opts.output,
  vocabulary.size, #vocabulary.merges, #bytes, count, #bytes / math.max(count, 1)))
